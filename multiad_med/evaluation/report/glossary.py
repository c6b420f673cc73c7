"""What figures are called and mean, for readers who do not know their names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from multiad_med.evaluation.lesion_level import SIZES_MM3
from multiad_med.metrics import FROC_RATES

__all__ = ["BASELINES", "CALIBRATION", "HEADLINES", "LEVELS", "METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """A figure in words.

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


LEVELS = {
    "slices": ("Slices", "Is this slice, or picture, abnormal?"),
    "pixels": ("Pixels", "Where in the slice is it?"),
    "lesions": (
        "Lesions",
        "Is each lesion found, that is a tenth of it flagged, and at how many false alarms?",
    ),
    "studies": ("Studies", "Is this study abnormal, and how well are its lesions outlined?"),
    "patients": ("Patients", "Is this patient abnormal?"),
}
"""Level: heading, the question that its figures answer."""

_UPPER_BOUND = "Upper bound: threshold chosen on these very data."


def _ranking(prefix: str, items: str, item: str, where: str = "") -> dict[str, Metric]:
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


METRICS: dict[str, Metric] = {
    **_ranking("image", "slices", "slice"),
    "image_f1_max": Metric(
        "Best F1",
        "Balance between abnormal slices found and flags that are right.",
        "it needs abnormal slices",
        warning=_UPPER_BOUND,
    ),
    **_ranking("pixel", "pixels", "pixel", ", all pixels"),
    **_ranking("foreground_pixel", "pixels", "pixel", ", foreground"),
    "aupro": Metric(
        "AUPRO",
        "How much of each lesion is marked while up to 30 % of the normal pixels are; small lesions "
        "count as much as large ones.",
        "it needs both lesion masks and normal pixels",
    ),
    "dice": Metric(
        "Dice",
        "Overlap of marked and true pixels of all slices together, at the threshold from held-out "
        "normals; 1 is perfect.",
        "it needs lesion masks or marked pixels",
    ),
    "best_dice": Metric(
        "Best Dice",
        "The same overlap at the threshold where it is largest.",
        "it needs lesion masks",
        warning=_UPPER_BOUND,
    ),
    **{
        f"lesion_sensitivity_{rate:g}": Metric(
            f"Found at {rate:g} false {'positive' if rate == 1 else 'positives'} per scan",
            "Share of the lesions found before there are more false alarms than that.",
            "it needs lesions",
        )
        for rate in FROC_RATES
    },
    "froc_score": Metric(
        "FROC score",
        f"Share of the lesions found, averaged over {', '.join(f'{r:g}' for r in FROC_RATES)} false "
        "positives per scan.",
        "it needs lesions",
    ),
    **{
        f"froc_score_{name}": Metric(
            f"FROC score, {name} lesions",
            f"The same of lesions {_size(*limits)}.",
            f"it needs lesions {_size(*limits)}",
        )
        for name, limits in SIZES_MM3.items()
    },
    **_ranking("study", "studies", "study"),
    "mean_dice": Metric(
        "Mean Dice",
        "Dice of each study at the threshold from held-out normals, averaged over patients.",
        "it needs studies with lesion masks or marked pixels",
    ),
    "hd95": Metric(
        "Hausdorff distance, 95 %",
        "How far apart the outlines of marked and true regions are; the smaller, the better. Studies "
        "without both are left out.",
        "it needs studies with voxel sizes in which both lesion and marked region exist",
        unit="mm",
    ),
    **_ranking("patient", "patients", "patient"),
}
"""Figures by name; a name that is not here is shown as it is."""

HEADLINES = (
    "patient_auroc",
    "image_auroc",
    "lesion_sensitivity_1",
    "foreground_pixel_ap",
    "aupro",
    "dice",
)
"""Figures of the cards, in their order."""

BASELINES = {
    "intensity": "how bright or dark the pixels are",
    "local standard deviation": "how rough or smooth the texture is",
    "foreground area": "how large the body or object is in the slice",
    "slice position": "where in the volume the slice lies",
}
"""Shortcut: what it looks at."""

CALIBRATION = {
    "pixel": ("Pixels", "of normal slices, inside the foreground; found are pixels of lesions"),
    "slice": ("Slices", "or pictures, by the held-out normal slices"),
    "volume": ("Volumes", "by the highest slice, among held-out normal volumes"),
    "patient": ("Patients", "by the highest volume, among held-out normal patients"),
}
"""Level: label, what is judged."""
