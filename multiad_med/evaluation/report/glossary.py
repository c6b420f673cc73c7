"""Names and meanings of metrics, for readers who do not know them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from multiad_med.evaluation.lesion_level import SIZES_MM3
from multiad_med.evaluation.words import Words
from multiad_med.metrics import FROC_RATES

__all__ = [
    "HEADLINES",
    "Metric",
    "baseline_names",
    "calibration_names",
    "level_names",
    "metric_names",
]


@dataclass(frozen=True)
class Metric:
    """A metric in words.

    Attributes:
        label: its name.
        explanation: one sentence.
        needs: what is missing where it is undefined.
        unit: of the value; without one the value lies in [0, 1].
        warning: what it must not be mistaken for.
    """

    label: str
    explanation: str = ""
    needs: str = "no reason is known"
    unit: str = ""
    warning: str = ""


_UPPER_BOUND = "Upper bound: threshold chosen on these very data."


def level_names(words: Words) -> dict[str, tuple[str, str]]:
    """Return by level the heading, and the question that its metrics answer."""
    slice_, lesion = words.slice, words.lesion
    return {
        "slices": (f"{slice_.capitalize()}s", f"Is this {slice_} abnormal?"),
        "pixels": ("Pixels", f"Where in the {slice_} is it?"),
        "lesions": (
            f"{lesion.capitalize()}s",
            f"Is each {lesion} found, that is a tenth of it flagged, and at how many false alarms?",
        ),
        "studies": (
            "Studies",
            f"Is this study abnormal, and how well are its {lesion}s outlined?",
        ),
        "patients": ("Patients", "Is this patient abnormal?"),
    }


def _ranking(prefix: str, item: str, where: str = "") -> dict[str, Metric]:
    items = f"{item[:-1]}ies" if item.endswith("y") else f"{item}s"
    needs = f"it needs both normal and abnormal {items}"
    return {
        f"{prefix}_auroc": Metric(
            f"AUROC{where}",
            f"How often an abnormal {item} scores higher than a normal one; 0.5 is a coin toss.",
            needs,
        ),
        f"{prefix}_ap": Metric(
            f"Average precision{where}",
            f"How many of the flagged {items} are truly abnormal, averaged over all thresholds; chance "
            f"is the share of abnormal {items}.",
            needs,
        ),
    }


def _size(low: float, high: float) -> str:
    if low <= 0:
        return f"below {high:g} mm³"
    return f"of {low:g} mm³ or more" if math.isinf(high) else f"of {low:g} to {high:g} mm³"


def metric_names(words: Words) -> dict[str, Metric]:
    """Return metrics by name; a name that is not here is shown as it is."""
    slice_, lesion, scan = words.slice, words.lesion, words.scan
    masks = "masks" if words.images else "lesion masks"
    return {
        **_ranking("image", slice_),
        "image_f1_max": Metric(
            "Best F1",
            f"Balance between abnormal {slice_}s found and flags that are right.",
            f"it needs abnormal {slice_}s",
            warning=_UPPER_BOUND,
        ),
        **_ranking("pixel", "pixel", ", all pixels"),
        **_ranking("foreground_pixel", "pixel", ", foreground"),
        "aupro": Metric(
            "AUPRO",
            f"How much of each {lesion} is marked while up to 30 % of the normal pixels are; small ones "
            "count as much as large ones.",
            f"it needs both {masks} and normal pixels",
        ),
        "spro": Metric(
            "sPRO",
            "How much of what is needed of each defect is marked while up to 5 % of the normal pixels "
            "are, by MVTec LOCO's saturation thresholds; the mean over categories.",
            "it needs defects and normal pixels",
        ),
        "dice": Metric(
            "Dice",
            f"Overlap of marked and true pixels of all {slice_}s together, at the threshold from "
            "held-out normals; 1 is perfect.",
            f"it needs {masks} or marked pixels",
        ),
        "best_dice": Metric(
            "Best Dice",
            "The same overlap at the threshold where it is largest.",
            f"it needs {masks}",
            warning=_UPPER_BOUND,
        ),
        **{
            f"lesion_sensitivity_{rate:g}": Metric(
                f"Found at {rate:g} false {'positive' if rate == 1 else 'positives'} per {scan}",
                f"Share of the {lesion}s found before there are more false alarms than that.",
                f"it needs {lesion}s",
            )
            for rate in FROC_RATES
        },
        "froc_score": Metric(
            "FROC score",
            f"Share of the {lesion}s found, averaged over {', '.join(f'{r:g}' for r in FROC_RATES)} "
            f"false positives per {scan}.",
            f"it needs {lesion}s",
        ),
        **{
            f"froc_score_{name}": Metric(
                f"FROC score, {name} {lesion}s",
                f"The same of {lesion}s {_size(*limits)}.",
                f"it needs {lesion}s {_size(*limits)}",
            )
            for name, limits in SIZES_MM3.items()
        },
        **_ranking("study", "study"),
        "mean_dice": Metric(
            "Mean Dice",
            "Dice of each study at the threshold from held-out normals, averaged over patients.",
            f"it needs studies with {masks} or marked pixels",
        ),
        "hd95": Metric(
            "Hausdorff distance, 95 %",
            "How far apart the outlines of marked and true regions are; the smaller, the better. Studies "
            "without both are left out.",
            "it needs studies with voxel sizes in which both lesion and marked region exist",
            unit="mm",
        ),
        **_ranking("patient", "patient"),
    }


HEADLINES = (
    "patient_auroc",
    "image_auroc",
    "lesion_sensitivity_1",
    "foreground_pixel_ap",
    "aupro",
    "dice",
)
"""Metrics of the cards, in their order."""


def baseline_names(words: Words) -> dict[str, str]:
    """Return what each trivial baseline looks at."""
    return {
        "intensity": "how bright or dark the pixels are",
        "local standard deviation": "how rough or smooth the texture is",
        "foreground area": f"how large the body or object is in the {words.slice}",
        "slice position": "where in the volume the slice lies",
    }


def calibration_names(words: Words) -> dict[str, tuple[str, str]]:
    """Return by level the label, and what is judged."""
    pixels = f"of normal {words.slice}s, inside the foreground; found are pixels of {words.lesion}s"
    volumes = ("Volumes", "by the highest slice, among held-out normal volumes")
    return {
        "pixel": ("Pixels", pixels),
        "slice": ("Slices", "by the held-out normal slices"),
        "volume": ("Images", "by the held-out normal images") if words.images else volumes,
        "patient": ("Patients", "by the highest study, among held-out normal patients"),
    }
