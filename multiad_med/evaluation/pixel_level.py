"""Figures of pixels: once for an evaluation, once for a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.collected import Collected
from multiad_med.evaluation.lesion_level import sampled
from multiad_med.evaluation.results import Curve
from multiad_med.metrics import Estimate, Ranking, SubjectHistograms, aupro, dice, score_edges

__all__ = ["pixel_figures", "pixel_level"]

_RELIABILITY_BINS = 20


def pixel_figures(cases: Sequence[Case]) -> dict[str, float]:
    """Figures of the pixels of slices whose truth is known, all of them and those in the foreground.

    Args:
        cases: scored studies; copied once.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``best_dice``, ``aupro``, ``foreground_pixel_auroc`` and
        ``foreground_pixel_ap``, the last two where there is foreground; nothing where no truth is known.
    """
    known = [case for case in cases if case.masked.any()]
    if not known:
        return {}
    maps = [m for case in known for m in case.anomaly_map[case.masked]]
    labels = [y for case in known for y in case.label[case.masked]]
    inside = torch.cat([case.foreground[case.masked].flatten() for case in known])
    flat, truth = (torch.cat([part.flatten() for part in parts]) for parts in (maps, labels))
    everywhere = Ranking(flat, truth)
    figures = {
        "pixel_auroc": everywhere.auroc,
        "pixel_ap": everywhere.average_precision,
        "best_dice": everywhere.f1_max,
        "aupro": aupro(maps, labels),
    }
    if inside.any():
        foreground = Ranking(flat[inside], truth[inside])
        figures |= {
            "foreground_pixel_auroc": foreground.auroc,
            "foreground_pixel_ap": foreground.average_precision,
        }
    return figures


def pixel_level(collected: Collected) -> tuple[dict[str, Estimate], list[Curve]]:
    """:func:`pixel_figures` and Dice at the threshold with intervals, and the map's reliability."""
    values = pixel_figures(collected.cases)
    if not values:
        return {}, []
    parts = [
        (
            int(subject),
            case.anomaly_map[case.masked],
            case.label[case.masked],
            case.foreground[case.masked],
        )
        for subject, case in zip(collected.of_case, collected.cases, strict=True)
        if case.masked.any()
    ]
    maps = torch.cat([m.flatten() for _, m, _, _ in parts])
    labels = torch.cat([y.flatten() for _, _, y, _ in parts])
    inside = torch.cat([f.flatten() for *_, f in parts])
    flags = maps >= collected.thresholds.pixel
    values["dice"] = dice(flags, labels) if labels.any() else math.nan
    edges = score_edges(sampled(maps))
    threshold = torch.tensor([collected.thresholds.pixel], dtype=torch.float64)
    histograms = SubjectHistograms(edges, len(collected.subjects), regions=True)
    foreground = SubjectHistograms(edges, len(collected.subjects))
    flagged = SubjectHistograms(threshold, len(collected.subjects))
    for subject, ms, ys, fs in parts:
        histograms.update(subject, ms, ys)
        foreground.update(subject, ms[fs], ys[fs])
        flagged.update(subject, ms, ys)
    weights = collected.weights.double()
    hits, alarms = weights @ flagged.positives[:, 1], weights @ flagged.negatives[:, 1]
    drawn = _named(histograms.metrics(collected.weights), "pixel")
    if inside.any():
        drawn |= _named(foreground.metrics(collected.weights), "foreground_pixel")
    drawn["dice"] = 2 * hits / (hits + alarms + weights @ flagged.positives.sum(1))
    figures = {name: collected.interval(drawn[name], value) for name, value in values.items()}
    return figures, _reliability(maps[inside], labels[inside])


def _named(metrics: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Metrics of histograms under the names of :func:`pixel_figures`."""
    names = {
        "auroc": f"{prefix}_auroc",
        "average_precision": f"{prefix}_ap",
        "f1_max": "best_dice" if prefix == "pixel" else f"{prefix}_f1_max",
        "aupro": "aupro",
    }
    return {names[name]: values for name, values in metrics.items()}


def _reliability(maps: Tensor, labels: Tensor) -> list[Curve]:
    """Share of lesion pixels among the foreground pixels of equal map value, map values in [0, 1)."""
    if not len(maps) or not 0 <= float(maps.min()) <= float(maps.max()) <= 1:
        return []
    bins = (maps * _RELIABILITY_BINS).long().clamp(max=_RELIABILITY_BINS - 1)
    count = bins.bincount(minlength=_RELIABILITY_BINS)
    share = bins[labels].bincount(minlength=_RELIABILITY_BINS) / count
    filled = count > 0
    middle = (torch.arange(_RELIABILITY_BINS) + 0.5) / _RELIABILITY_BINS
    return [Curve("share of lesion pixels", middle[filled].tolist(), share[filled].tolist())]
