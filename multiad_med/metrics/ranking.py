"""Exact metrics of a ranking: AUROC, average precision, largest F1, and their curves."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from multiad_med.metrics.counting import as_anomalous, as_scores, check_same_shape, count_from
from multiad_med.utils.errors import InputError

__all__ = [
    "PrecisionRecallCurve",
    "Ranking",
    "RocCurve",
    "auroc",
    "average_precision",
    "f1_max",
]


class RocCurve(NamedTuple):
    """Points from (0, 0) to (1, 1); a point flags the scores that reach its threshold."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    thresholds: NDArray[Any]


class PrecisionRecallCurve(NamedTuple):
    """Points by rising recall; a point flags the scores that reach its threshold."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: NDArray[Any]


class Ranking:
    """Counts at every distinct score of an anomalous item, from which each metric follows.

    Scores are used as they are; no sigmoid, no binning, no rounding. Tied scores are one threshold.
    No threshold between two anomalous scores has a better F1, precision or recall than the upper
    one, and the ROC curve runs straight there, so normal items need only be counted. Scores on
    another device are copied to the CPU.

    Args:
        scores: any shape, the larger the more anomalous; tensor or array.
        labels: same shape, anomalous where not 0.

    Attributes:
        thresholds: distinct scores of anomalous items ``(K,)``, descending.
        true_positives: anomalous items that reach each threshold ``(K,)``.
        false_positives: normal items that reach each threshold ``(K,)``.
        positives, negatives: numbers of anomalous and of normal items.

    Raises:
        InputError: when the shapes differ, there are no scores, a score is not finite, or a label
            is NaN.
    """

    def __init__(self, scores: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]) -> None:
        check_same_shape(scores, labels)
        values, anomalous = as_scores(scores), as_anomalous(labels)
        if values.size == 0:
            raise InputError("There are no scores; a ranking needs at least one. Is the set empty?")
        thresholds, tied = np.unique(values.compress(anomalous), return_counts=True)
        above, reached = count_from(values, thresholds)
        true_positives = np.cumsum(tied[::-1])
        self.positives = int(tied.sum())
        self.negatives = values.size - self.positives
        self.thresholds = thresholds[::-1]
        self.true_positives = true_positives
        self.false_positives = reached[::-1] - true_positives
        self._tied = tied[::-1]
        self._false_positives_above = above[::-1] - true_positives + self._tied

    @cached_property
    def auroc(self) -> float:
        """Area under the ROC curve, ties counting half; NaN when a class is missing."""
        if not self.positives or not self.negatives:
            return math.nan
        beaten = self.negatives - (self._false_positives_above + self.false_positives) / 2
        return float(self._tied @ beaten) / self.positives / self.negatives

    @cached_property
    def average_precision(self) -> float:
        """Precision averaged over the steps of recall; NaN without an anomalous item."""
        if not self.positives:
            return math.nan
        return float(self._tied @ self._precision) / self.positives

    @cached_property
    def f1_max(self) -> float:
        """Largest F1 over all thresholds (of pixels: the best Dice); NaN without an anomalous item.

        It is an upper bound, since the threshold is chosen on the same data.
        """
        return float(self._f1.max()) if self.positives else math.nan

    @cached_property
    def f1_max_threshold(self) -> float:
        """Score from which to flag for :attr:`f1_max`; NaN without an anomalous item."""
        return float(self.thresholds[self._f1.argmax()]) if self.positives else math.nan

    def roc_curve(self, *, points: int = 1000) -> RocCurve:
        """Return corners of the ROC curve, thinned evenly along it; a missing class's rate is NaN.

        Args:
            points: at most so many, 2 or more.

        Raises:
            InputError: when fewer than 2 points are asked for.
        """
        # Two corners per threshold: before its anomalous items are flagged, and with its ties.
        false = np.column_stack([self._false_positives_above, self.false_positives]).ravel()
        true = np.column_stack([self.true_positives - self._tied, self.true_positives]).ravel()
        just_over = np.nextafter(self.thresholds, self.thresholds.dtype.type(np.inf))
        at = np.column_stack([just_over, self.thresholds]).ravel()
        false = np.concatenate([[0], false, [self.negatives]])
        true = np.concatenate([[0], true, [self.positives]])
        at = np.concatenate([[np.inf], at, [-np.inf]])
        path = false / max(self.negatives, 1) + true / max(self.positives, 1)
        kept = _thinned(path, points)
        return RocCurve(
            false[kept] / (self.negatives or math.nan),
            true[kept] / (self.positives or math.nan),
            at[kept],
        )

    def precision_recall_curve(self, *, points: int = 1000) -> PrecisionRecallCurve:
        """Return precision and recall at thresholds, thinned evenly by recall; empty without positives.

        Args:
            points: at most so many, 2 or more.

        Raises:
            InputError: when fewer than 2 points are asked for.
        """
        recall = self.true_positives / (self.positives or math.nan)
        kept = _thinned(recall, points)
        return PrecisionRecallCurve(self._precision[kept], recall[kept], self.thresholds[kept])

    @property
    def _precision(self) -> NDArray[np.float64]:
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def _f1(self) -> NDArray[np.float64]:
        flagged = self.true_positives + self.false_positives
        return 2 * self.true_positives / (flagged + self.positives)


def _thinned(path: NDArray[np.float64], points: int) -> NDArray[np.intp]:
    """Return indices of at most so many points, evenly along a rising path, with its ends."""
    if points < 2:
        raise InputError(f"points must be 2 or more, got {points}; a curve has two ends.")
    if path.size <= points:
        return np.arange(path.size)
    even = np.linspace(path[0], path[-1], points)
    return np.unique(np.searchsorted(path, even))


def auroc(scores: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]) -> float:
    """Return the area under the ROC curve; see :class:`Ranking`."""
    return Ranking(scores, labels).auroc


def average_precision(scores: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]) -> float:
    """Return the average precision; see :class:`Ranking`."""
    return Ranking(scores, labels).average_precision


def f1_max(scores: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]) -> float:
    """Return the largest F1 over all thresholds; see :class:`Ranking`."""
    return Ranking(scores, labels).f1_max
