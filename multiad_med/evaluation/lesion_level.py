"""FROC of cases: lesions found against false alarms per scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.results import Curve
from multiad_med.metrics import (
    Estimate,
    bootstrap_froc,
    candidate_thresholds,
    false_positive_components,
    froc,
    interval,
    lesion_scores,
    lesions,
)

__all__ = ["SIZES_MM3", "lesion_figures", "sampled"]

SIZES_MM3 = {"small": (0.0, 100.0), "medium": (100.0, 1000.0), "large": (1000.0, math.inf)}
"""Classes of lesion size: a cube of 100 mm3 has sides of 4.6 mm, one of 1000 mm3 of 10 mm."""


def sampled(values: Tensor, *, count: int = 2_000_000) -> Tensor:
    """At most so many values, drawn with a fixed seed; a stride would hit the same columns."""
    if len(values) <= count:
        return values
    generator = torch.Generator().manual_seed(0)
    return values[torch.randint(len(values), (count,), generator=generator)]


def lesion_figures(
    cases: Sequence[Case], of_case: Tensor, weights: Tensor, subjects: int
) -> tuple[dict[str, Estimate], list[Curve], int]:
    """Sensitivity at rates of false positives per scan, and the FROC score.

    A lesion is a component of the mask, 26-connected in volumes and 8-connected in pictures; it is
    found at a threshold that flags a tenth of it or more. Sizes are told apart where voxels have a
    size in mm. Studies with an abnormal slice that has no mask, or with missing slices in between,
    are left out.

    Args:
        cases: scored studies.
        of_case: each case's subject, a column of the weights.
        weights: of :func:`multiad_med.metrics.resamples`.
        subjects: their number.

    Returns:
        Figures, the curve, and the number of lesions; an undefined score where there is none.
    """
    known = [i for i, case in enumerate(cases) if case.masked.all() and not case.has_gaps]
    chosen = [cases[i] for i in known]
    values = torch.cat([case.anomaly_map[case.foreground] for case in chosen] or [torch.empty(0)])
    if not len(values) or not any(case.label.any() for case in chosen):
        return {"froc_score": Estimate(math.nan, math.nan, math.nan)}, [], 0
    thresholds = candidate_thresholds(sampled(values))
    scores, alarms, volumes = [], [], []
    for case in chosen:
        grids = [case.volume(name) for name in ("anomaly_map", "label", "foreground")]
        spacing = case.spacing
        if grids[0].shape[-1] == 1:
            grids = [grid[..., 0] for grid in grids]
            spacing = None
        anomaly_map, label, foreground = grids
        found = lesions(label, spacing=spacing)
        scores.append(lesion_scores(anomaly_map, found, foreground=foreground))
        volumes.append(found.volumes)
        alarms.append(
            false_positive_components(anomaly_map, label, thresholds, foreground=foreground)
        )
    result = froc(scores, alarms, thresholds)
    common = (scores, alarms, thresholds)

    def estimate(value: float, **options: Any) -> Estimate:
        drawn = bootstrap_froc(*common, of_case[known], weights, **options)
        return interval(drawn, value, subjects=subjects)

    figures = {"froc_score": estimate(result.score)}
    for rate, value in result.at_rates.items():
        figures[f"lesion_sensitivity_{rate:g}"] = estimate(value, rates=[rate])
    if all(case.spacing is not None and len(case.numbers) > 1 for case in chosen):
        for name, size_range in SIZES_MM3.items():
            sized: dict[str, Any] = {"volumes": volumes, "size_range": size_range}
            part = froc(*common, **sized)
            if part.lesions:
                figures[f"froc_score_{name}"] = estimate(part.score, **sized)
    curve = Curve("lesions", list(result.false_positives), list(result.sensitivity))
    return figures, [curve], result.lesions
