"""Metrics of pixels, study by study: once for an evaluation, once for a comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.collected import Collected
from multiad_med.evaluation.evaluation import Curve
from multiad_med.metrics import (
    Estimate,
    StreamingAupro,
    StreamingRanking,
    SubjectHistograms,
    map_edges,
)
from multiad_med.utils.errors import InputError

__all__ = ["PixelLevel", "PixelMetrics"]

_RELIABILITY_BINS = 20
_SLICES = 16  # at a time: what a step copies must be small beside a volume


class _Part(NamedTuple):
    """Some slices of a case whose pixels' truth is known, ``(n, X, Y)`` each; normal ``(n,)``."""

    maps: Tensor
    labels: Tensor
    inside: Tensor
    normal: Tensor


def _parts(case: Case) -> Iterator[_Part]:
    for start in range(0, len(case.masked), _SLICES):
        part = slice(start, start + _SLICES)
        known = case.masked[part]
        if known.any():
            yield _Part(
                maps=case.anomaly_map[part][known],
                labels=case.label[part][known],
                inside=case.foreground[part][known],
                normal=~case.abnormal[part][known],
            )


class PixelMetrics:
    """Metrics of pixels in slices whose truth is known: of all, and of those in the foreground.

    Maps may have any scale. Memory does not grow with the number of cases. A metric is off by less than
    1e-4, or there is a warning; see :class:`multiad_med.metrics.StreamingRanking`.
    """

    def __init__(self) -> None:
        self._everywhere, self._foreground = StreamingRanking(), StreamingRanking()
        self._regions = StreamingAupro()
        self._any = self._any_inside = False

    def update(self, case: Case) -> None:
        """Add a case."""
        for part in _parts(case):
            self._any = True
            self._everywhere.update(part.maps, part.labels)
            self._regions.update(part.maps, part.labels)
            if part.inside.any():
                self._any_inside = True
                self._foreground.update(part.maps[part.inside], part.labels[part.inside])

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the cases so far.

        Returns:
            ``pixel_auroc``, ``pixel_ap``, ``best_dice``, ``aupro``, ``foreground_pixel_auroc`` and
            ``foreground_pixel_ap``, the last two where there is foreground; nothing where no truth is
            known.
        """
        if not self._any:
            return {}
        metrics = {
            "pixel_auroc": self._everywhere.auroc,
            "pixel_ap": self._everywhere.average_precision,
            "best_dice": self._everywhere.f1_max,
            "aupro": self._regions.aupro,
        }
        if self._any_inside:
            metrics |= {
                "foreground_pixel_auroc": self._foreground.auroc,
                "foreground_pixel_ap": self._foreground.average_precision,
            }
        return metrics


class PixelLevel:
    """:class:`PixelMetrics` of calibrated maps in [0, 1], with intervals and metrics of categories.

    Intervals and categories come from histograms (:class:`multiad_med.metrics.SubjectHistograms`), one
    for each subject and category.

    Args:
        threshold: of the map.
    """

    def __init__(self, threshold: float) -> None:
        at_threshold = torch.tensor([threshold], dtype=torch.float64)
        self._pixel_metrics = PixelMetrics()
        self._columns: dict[tuple[str, str], int] = {}
        self._everywhere = SubjectHistograms(map_edges(), regions=True)
        self._foreground = SubjectHistograms(map_edges())
        self._flagged = SubjectHistograms(at_threshold)
        self._rates = SubjectHistograms(at_threshold)
        self._reliability = torch.zeros(2, _RELIABILITY_BINS, dtype=torch.int64)

    def update(self, case: Case) -> None:
        """Add a case.

        Raises:
            InputError: when its map is not in [0, 1].
        """
        low, high = float(case.anomaly_map.min()), float(case.anomaly_map.max())
        if not 0 <= low <= high <= 1:
            raise InputError(
                f"{case.study}: map values from {low:g} to {high:g}; an evaluated map lies in [0, 1], "
                "such as m / (m + t) of a score m and its threshold t."
            )
        self._pixel_metrics.update(case)
        column = self._columns.setdefault((case.subject, case.category), len(self._columns))
        nothing = torch.zeros(0)
        for histogram in (self._foreground, self._flagged, self._rates):
            histogram.update(column, nothing, nothing)
        self._everywhere.update(column, torch.zeros(0, 1, 1), torch.zeros(0, 1, 1))
        for maps, labels, inside, normal in _parts(case):
            self._everywhere.update(column, maps, labels)
            self._flagged.update(column, maps, labels)
            values, lesion = maps[inside], labels[inside]
            self._foreground.update(column, values, lesion)
            counted = lesion | normal[:, None, None].expand_as(inside)[inside]
            self._rates.update(column, values[counted], lesion[counted])
            bins = (values * _RELIABILITY_BINS).long().clamp(max=_RELIABILITY_BINS - 1)
            for row, chosen in enumerate((bins, bins[lesion])):
                self._reliability[row] += chosen.bincount(minlength=_RELIABILITY_BINS)

    def estimates(self, collected: Collected) -> tuple[dict[str, Estimate], list[Curve]]:
        """Return the metrics and Dice at the threshold with intervals, and the map's reliability."""
        values = self._pixel_metrics.metrics()
        if not values:
            return {}, []
        weights = self._of_columns(collected, collected.weights)
        drawn = self._metrics(weights)
        hits, alarms = (
            weights @ h[:, 1] for h in (self._flagged.positives, self._flagged.negatives)
        )
        lesion = weights @ self._flagged.positives.sum(1)
        drawn["dice"] = 2 * hits / (hits + alarms + lesion)
        own, positives = self._flagged.negatives[:, 1].sum(), self._flagged.positives
        values["dice"] = (
            float(2 * positives[:, 1].sum() / (positives[:, 1].sum() + own + positives.sum()))
            if positives.any()
            else math.nan
        )
        metrics = {name: collected.interval(drawn[name], value) for name, value in values.items()}
        return metrics, self._reliability_curve()

    def categories(self) -> dict[str, dict[str, float]]:
        """Return metrics of each category's pixels."""
        result = {}
        for name in {category for _, category in self._columns}:
            chosen = torch.tensor([[own == name for _, own in self._columns]], dtype=torch.float64)
            result[name] = {key: float(v) for key, v in self._metrics(chosen).items()}
        return result

    def observed(self, collected: Collected) -> tuple[int, Estimate, int, Estimate]:
        """Return how many foreground pixels are at or above the threshold.

        Returns:
            Number of pixels and the share that is flagged, of normal slices and then of lesions.
        """
        weights = self._of_columns(collected, collected.weights)
        found = []
        for counts in (self._rates.negatives, self._rates.positives):
            total, flagged = float(counts.sum()), float(counts[:, 1].sum())
            drawn = (weights @ counts[:, 1]) / (weights @ counts.sum(1))
            share = flagged / total if total else math.nan
            found += [int(total), collected.interval(drawn, share)]
        return tuple(found)  # type: ignore[return-value]

    def _of_columns(self, collected: Collected, weights: Tensor) -> Tensor:
        """Return weights of subjects as weights of the histograms' rows."""
        return weights[:, [collected.position[subject] for subject, _ in self._columns]].double()

    def _metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Return metrics of the histograms under the names of :class:`PixelMetrics`."""
        everywhere, foreground = (h.metrics(weights) for h in (self._everywhere, self._foreground))
        return {
            "pixel_auroc": everywhere["auroc"],
            "pixel_ap": everywhere["average_precision"],
            "best_dice": everywhere["f1_max"],
            "aupro": everywhere["aupro"],
            "foreground_pixel_auroc": foreground["auroc"],
            "foreground_pixel_ap": foreground["average_precision"],
        }

    def _reliability_curve(self) -> list[Curve]:
        """Return the share of lesion pixels among the foreground pixels of equal map value."""
        count, lesion = self._reliability
        filled = count > 0
        if not filled.any():
            return []
        middle = (torch.arange(_RELIABILITY_BINS) + 0.5) / _RELIABILITY_BINS
        share = lesion[filled] / count[filled]
        return [Curve("share of lesion pixels", middle[filled].tolist(), share.tolist())]
