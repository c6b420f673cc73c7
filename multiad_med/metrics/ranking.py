"""Exact metrics of a ranking: AUROC, average precision, largest F1, from one sort."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Ranking", "auroc", "average_precision", "f1_max"]


class Ranking:
    """Scores sorted once, with counts at every distinct score.

    Scores are used as they are; no sigmoid, no binning. Tied scores are one threshold.

    Args:
        scores: any shape, the larger the more anomalous.
        labels: same shape, anomalous where not 0.

    Raises:
        ValueError: when the shapes differ, there are no scores, or a score is not finite.
    """

    def __init__(self, scores: Tensor, labels: Tensor) -> None:
        scores, labels = torch.as_tensor(scores), torch.as_tensor(labels)
        if scores.shape != labels.shape:
            raise ValueError(
                f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} differ in shape."
            )
        if scores.numel() == 0:
            raise ValueError("There are no scores.")
        if not torch.isfinite(scores).all():
            raise ValueError(f"{int((~torch.isfinite(scores)).sum())} scores are NaN or infinite.")
        ordered, order = scores.flatten().sort(descending=True)
        positive = (labels.flatten() != 0)[order].cumsum(0)
        last = torch.ones_like(ordered, dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        self.thresholds = ordered[last]
        self.true_positives = positive[last].double()
        rank = torch.arange(1, len(ordered) + 1, device=ordered.device)[last]
        self.false_positives = rank.double() - self.true_positives
        self.positives = float(self.true_positives[-1])
        self.negatives = float(self.false_positives[-1])

    @cached_property
    def auroc(self) -> float:
        """Area under the ROC curve, ties counting half; NaN when a class is missing."""
        if not self.positives or not self.negatives:
            return float("nan")
        zero = self.true_positives.new_zeros(1)
        area = torch.trapezoid(
            torch.cat([zero, self.true_positives]), torch.cat([zero, self.false_positives])
        )
        return float(area) / self.positives / self.negatives

    @cached_property
    def average_precision(self) -> float:
        """Precision averaged over the steps of recall; NaN without an anomalous item."""
        if not self.positives:
            return float("nan")
        precision = self.true_positives / (self.true_positives + self.false_positives)
        steps = torch.diff(self.true_positives, prepend=self.true_positives.new_zeros(1))
        return float((precision * steps).sum()) / self.positives

    @cached_property
    def f1_max(self) -> float:
        """Largest F1 over all thresholds (of pixels: the best Dice); NaN without an anomalous item.

        The threshold is chosen on the very data it is judged on: an upper bound.
        """
        if not self.positives:
            return float("nan")
        flagged = self.true_positives + self.false_positives
        return float((2 * self.true_positives / (flagged + self.positives)).max())


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve; see :class:`Ranking`."""
    return Ranking(scores, labels).auroc


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Average precision; see :class:`Ranking`."""
    return Ranking(scores, labels).average_precision


def f1_max(scores: Tensor, labels: Tensor) -> float:
    """Largest F1 over all thresholds; see :class:`Ranking`."""
    return Ranking(scores, labels).f1_max
