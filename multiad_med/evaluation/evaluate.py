"""From scored cases to every figure of an evaluation, with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.collected import Collected, Thresholds
from multiad_med.evaluation.examples import choose_examples
from multiad_med.evaluation.lesion_level import lesion_figures
from multiad_med.evaluation.outcomes import FIGURES, figures_of
from multiad_med.evaluation.pixel_level import pixel_level
from multiad_med.evaluation.results import Curve, Evaluation, Histogram
from multiad_med.evaluation.shortcuts import Shortcuts
from multiad_med.metrics import (
    Estimate,
    Ranking,
    bootstrap_mean,
    dice,
    hausdorff95,
)
from multiad_med.utils.errors import InputError

__all__ = ["evaluate_cases"]

_FEW_PATIENTS = 20


def _calibration(collected: Collected) -> dict[str, float]:
    """Nominal and observed rates at the thresholds."""
    t = collected.thresholds
    normal = [
        case.anomaly_map[~case.abnormal][case.foreground[~case.abnormal]]
        for case in collected.cases
    ]
    pixels = torch.cat(normal) >= t.pixel
    flagged = collected.scores >= t.image
    known = not math.isnan(t.image)

    def rate(items: Tensor) -> float:
        return float(items.float().mean()) if known and len(items) else math.nan

    return {
        "pixel_rate_nominal": t.pixel_rate,
        "pixel_rate_observed": float(pixels.float().mean()) if len(pixels) else math.nan,
        "slice_rate_nominal": t.image_rate,
        "slice_rate_observed": rate(flagged[~collected.abnormal]),
        "slice_sensitivity": rate(flagged[collected.abnormal]),
    }


def _study_row(case: Case, threshold: float) -> dict[str, Any]:
    """One study's own figures on its whole grid."""
    maps, label = case.volume("anomaly_map"), case.volume("label")
    known = bool(case.masked.all())
    solid = known and not case.has_gaps
    ranking = Ranking(case.anomaly_map[case.masked], case.label[case.masked]) if known else None
    flagged = maps >= threshold
    spacing = case.spacing
    return {
        "study": case.study,
        "subject": case.subject,
        "category": case.category,
        "kind": case.kind,
        "anomalous": case.anomalous,
        "score": case.score,
        "slices": len(case.scores),
        "abnormal_slices": int(case.abnormal.sum()),
        "lesion_voxels": int(label.sum()),
        "flagged_voxels": int(flagged.sum()),
        "pixel_auroc": math.nan if ranking is None else ranking.auroc,
        "pixel_ap": math.nan if ranking is None else ranking.average_precision,
        "best_dice": math.nan if ranking is None else ranking.f1_max,
        "dice": dice(flagged, label) if known and label.any() else math.nan,
        "hd95_mm": hausdorff95(flagged, label, spacing=spacing)
        if solid and spacing is not None
        else math.nan,
    }


def _slice_rows(case: Case, threshold: float) -> Iterable[dict[str, Any]]:
    for i, number in enumerate(case.numbers.tolist()):
        flagged = case.anomaly_map[i] >= threshold
        yield {
            "study": case.study,
            "subject": case.subject,
            "category": case.category,
            "kind": case.kind,
            "slice": number,
            "abnormal": bool(case.abnormal[i]),
            "score": float(case.scores[i]),
            "foreground_pixels": int(case.foreground[i].sum()),
            "lesion_pixels": int(case.label[i].sum()),
            "flagged_pixels": int(flagged.sum()),
            "dice": dice(flagged, case.label[i]) if case.masked[i] else math.nan,
        }


def _studies(
    collected: Collected, rows: list[dict[str, Any]]
) -> tuple[dict[str, Estimate], dict[str, Estimate], Ranking]:
    """Figures of studies and of patients; a patient scores as its highest study."""
    scores = torch.tensor([row["score"] for row in rows])
    anomalous = torch.tensor([row["anomalous"] for row in rows])
    studies: dict[str, Estimate] = {}
    if len(rows) > len(collected.subjects):
        ranked, _ = collected.ranking("study", scores, anomalous, collected.of_case)
        studies = {k: v for k, v in ranked.items() if not k.endswith("f1_max")}
    for name, key in (("mean_dice", "dice"), ("hd95", "hd95_mm")):
        values = torch.tensor([row[key] for row in rows], dtype=torch.float64)
        per_subject = torch.full((len(collected.subjects),), math.nan, dtype=torch.float64)
        for subject in range(len(per_subject)):
            own = values[collected.of_case == subject]
            per_subject[subject] = own[~own.isnan()].mean() if (~own.isnan()).any() else math.nan
        if (~per_subject.isnan()).any():
            studies[name] = collected.interval(
                bootstrap_mean(per_subject, collected.weights), float(per_subject.nanmean())
            )
    patient_scores = torch.stack(
        [scores[collected.of_case == s].max() for s in range(len(collected.subjects))]
    )
    patient_labels = torch.stack(
        [anomalous[collected.of_case == s].any() for s in range(len(collected.subjects))]
    )
    patients, ranking = collected.ranking(
        "patient", patient_scores, patient_labels, torch.arange(len(patient_scores))
    )
    return studies, {k: v for k, v in patients.items() if not k.endswith("f1_max")}, ranking


def _roc(name: str, ranking: Ranking) -> Curve:
    if not ranking.positives or not ranking.negatives:
        return Curve(name, [], [])
    curve = ranking.roc_curve()
    return Curve(name, curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist())


def _precision_recall(name: str, ranking: Ranking) -> Curve:
    curve = ranking.precision_recall_curve()
    return Curve(name, curve.recall.tolist(), curve.precision.tolist())


def _remarks(
    figures: Mapping[str, Mapping[str, Estimate]],
    baselines: Mapping[str, Mapping[str, float]],
    collected: Collected,
) -> list[str]:
    remarks = []
    for level, metric in (
        ("slices", "image_auroc"),
        ("slices", "image_ap"),
        ("pixels", "foreground_pixel_auroc"),
        ("pixels", "foreground_pixel_ap"),
    ):
        if metric not in figures[level]:
            continue
        own = figures[level][metric].value
        for name, values in baselines.items():
            if values.get(metric, -math.inf) >= own:
                remarks.append(
                    f"The model does not beat a shortcut: {metric} of {name} alone is "
                    f"{values[metric]:.3f}, the model's {own:.3f}."
                )
    if (count := len(collected.subjects)) == 1:
        remarks.append("Only one patient: there are no intervals.")
    elif count < _FEW_PATIENTS:
        remarks.append(f"Only {count} patients: intervals over so few are too narrow.")
    if collected.abnormal.all() or not collected.abnormal.any():
        which = "abnormal" if collected.abnormal.all() else "normal"
        remarks.append(f"All slices are {which}: figures that need both classes are undefined.")
    if unknown := sum(int((~case.masked).sum()) for case in collected.cases):
        remarks.append(f"{unknown} abnormal slices have no mask; pixel figures leave them out.")
    if gaps := sum(case.has_gaps for case in collected.cases):
        remarks.append(
            f"{gaps} studies lack slices between others; lesion figures and distances leave them out."
        )
    return remarks


def _categories(cases: Sequence[Case]) -> dict[str, dict[str, float | None]]:
    """Figures by category and their means over the categories that have them; {} for only one."""
    names = sorted({case.category for case in cases})
    if len(names) < 2:
        return {}
    figures = {
        name or "(none)": figures_of([case for case in cases if case.category == name])
        for name in names
    }
    means = {}
    for metric in FIGURES:
        known = [value for own in figures.values() if (value := own[metric]) is not None]
        means[metric] = sum(known) / len(known) if known else None
    return {**figures, "mean": means}


def evaluate_cases(
    cases: Iterable[Case],
    *,
    thresholds: Thresholds | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    training: list[Curve] | None = None,
    manifest: dict[str, Any] | None = None,
    remarks: Sequence[str] = (),
) -> Evaluation:
    """Compute every figure of scored cases.

    Slices, pixels (of all pixels, as published figures are, and inside the foreground), lesions
    (see :func:`multiad_med.metrics.froc`), studies and patients; 95 % intervals by bootstrap over
    patients; shortcuts beside them. Figures are exact; the intervals of pixel figures come from
    histograms (:class:`multiad_med.metrics.SubjectHistograms`). All cases are held in memory, and
    their maps, labels and foreground are copied a few times.

    Args:
        cases: at least one; those of a volume have their slices in order.
        thresholds: from held-out normal images; without them 0.5 in the map and none for scores.
        bootstrap: number of resamples.
        seed: of the resampling.
        training: curves of the training, for the report.
        manifest: of :func:`multiad_med.evaluation.run_manifest`.
        remarks: further sentences that a reader must see first.

    Raises:
        InputError: without cases.
    """
    thresholds = Thresholds() if thresholds is None else thresholds
    shortcuts = Shortcuts()
    kept = []
    for case in cases:
        shortcuts.update(case)
        kept.append(case)
    if not kept:
        raise InputError("There are no predictions to evaluate; the test section is empty.")
    collected = Collected(kept, thresholds, bootstrap, seed)

    slices, ranking = collected.ranking(
        "image", collected.scores, collected.abnormal, collected.of_slice
    )
    pixels, reliability = pixel_level(collected)
    lesions, froc_curve, lesion_count = lesion_figures(
        kept, collected.of_case, collected.weights, len(collected.subjects)
    )
    rows = [_study_row(case, thresholds.pixel) for case in kept]
    studies, patients, patient_ranking = _studies(collected, rows)
    figures = {"slices": slices, "pixels": pixels, "lesions": lesions}
    histograms = {
        "slices": Histogram(
            collected.scores[~collected.abnormal].tolist(),
            collected.scores[collected.abnormal].tolist(),
            thresholds.image,
        )
    }
    curves = {
        "roc": [_roc("slices", ranking)],
        "precision_recall": [_precision_recall("slices", ranking)],
        "froc": froc_curve,
        "reliability": reliability,
    }
    if len(collected.scores) > len(kept):
        figures["studies"] = studies
    if len(collected.scores) > len(collected.subjects):
        figures["patients"] = patients
        curves["roc"].append(_roc("patients", patient_ranking))
    baselines = shortcuts.figures()
    return Evaluation(
        figures=figures,
        baselines=baselines,
        remarks=[*remarks, *_remarks(figures, baselines, collected)],
        counts={
            "patients": len(collected.subjects),
            "studies": len(kept),
            "slices": len(collected.scores),
            "abnormal_slices": int(collected.abnormal.sum()),
            "lesions": lesion_count,
            "studies_without_distance": sum(
                case.spacing is not None and row["lesion_voxels"] > 0 and math.isnan(row["hd95_mm"])
                for case, row in zip(kept, rows, strict=True)
            ),
        },
        calibration=_calibration(collected),
        slices=[row for case in kept for row in _slice_rows(case, thresholds.pixel)],
        studies=rows,
        curves={
            name: drawn for name, lines in curves.items() if (drawn := [c for c in lines if c.x])
        },
        histograms=histograms,
        examples=choose_examples(kept, thresholds.pixel),
        categories=_categories(kept),
        training=training or [],
        manifest=manifest or {},
    )
