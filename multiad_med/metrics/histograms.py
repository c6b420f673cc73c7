"""Pixels of many subjects in little memory: a histogram per subject, and metrics of any resample."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from multiad_med.metrics.aupro import check_fpr_limit, read_map
from multiad_med.metrics.bootstrap import (
    check_weights,
    from_zero,
    in_chunks,
    joined,
    ranking_metrics,
)
from multiad_med.metrics.counting import as_anomalous, as_scores, check_same_shape
from multiad_med.utils.errors import InputError

__all__ = ["SubjectHistograms", "score_edges"]


def score_edges(sample: Tensor, *, bins: int = 2048) -> Tensor:
    """Edges for :class:`SubjectHistograms`: half at even quantiles, half ever denser to the top.

    The denser half lies at ranks that fall geometrically from the median to the maximum, as average
    precision and AUPRO live among the highest scores. Where the sample has fewer distinct scores
    than bins each is an edge, and nothing is lost.

    Args:
        sample: pooled scores of all subjects, any shape; of many pixels a random sample. (Every k-th
            pixel is none: where k divides the width of the images it is a few columns.) What lies
            above its maximum is one bin.
        bins: number of bins, at most.

    Returns:
        float64, ascending, fewer than ``bins``.

    Raises:
        InputError: when there are no scores, one is not finite, or there are fewer than 4 bins.
    """
    if bins < 4:
        raise InputError(f"bins must be 4 or more, got {bins}.")
    ordered = torch.from_numpy(as_scores(sample)).double().sort().values
    if not len(ordered):
        raise InputError("There are no scores to set edges from.")
    distinct = ordered.unique_consecutive()
    if len(distinct) < bins:
        return distinct
    last, half = len(ordered) - 1, (bins - 1) // 2
    even = torch.linspace(0, last, half, dtype=torch.float64)
    tail = last - torch.logspace(0, math.log10(last / 2), bins - 1 - half, dtype=torch.float64)
    return ordered[torch.cat([even, tail]).round().long()].unique()


class SubjectHistograms:
    """Scores of each subject's pixels as counts per bin, from which any resample is a product.

    Counts are exact at every edge, and curves are straight between edges, as if the scores of a bin
    were tied. Against the exact metric this costs

    * AUROC at most half the largest share of the normal pixels that one bin holds: about 0.0005 for
      2048 bins of continuous scores;
    * AUPRO that share again, divided by the limit: about 0.0016 at 0.3;
    * average precision and the largest F1, which is never above the exact one, at most the share that
      a bin adds to what is flagged at its lower edge: about 0.015 in the denser half.

    These are bounds; smooth distributions come out ten times closer or better.

    Args:
        edges: ascending, of :func:`score_edges`.
        subjects: number S of subjects.
        regions: whether scores are whole images and AUPRO is wanted.

    Raises:
        InputError: when the edges are not finite and ascending, or there is no subject.
    """

    def __init__(self, edges: Tensor, subjects: int, *, regions: bool = False) -> None:
        self.edges = torch.as_tensor(edges).detach().cpu().double()
        if self.edges.ndim != 1 or not len(self.edges) or not self.edges.isfinite().all():
            raise InputError("edges must be a vector of one or more finite numbers.")
        if not (self.edges.diff() > 0).all():
            raise InputError("edges must be strictly ascending; see score_edges.")
        if subjects < 1:
            raise InputError(f"subjects must be 1 or more, got {subjects}.")
        bins = len(self.edges) + 1
        self.positives = torch.zeros(subjects, bins, dtype=torch.float64)
        self.negatives = torch.zeros(subjects, bins, dtype=torch.float64)
        self.overlap = torch.zeros(subjects, bins, dtype=torch.float64) if regions else None
        self.regions = torch.zeros(subjects, dtype=torch.float64)

    def update(self, subject: int, scores: Tensor, labels: Tensor) -> None:
        """Add pixels of a subject.

        Args:
            subject: 0 to S - 1.
            scores: any shape; with regions ``(H, W)`` or ``(N, H, W)``, whole images.
            labels: same shape, anomalous where not 0.

        Raises:
            InputError: when shapes do not fit, a score is not finite, or the subject is out of range.
        """
        if not 0 <= subject < len(self.regions):
            raise InputError(f"subject must be 0 to {len(self.regions) - 1}, got {subject}.")
        if self.overlap is None:
            check_same_shape(scores, labels)
            self._count(subject, as_scores(scores), as_anomalous(labels))
            return
        if scores.ndim not in (2, 3):
            raise InputError(f"Regions need images (H, W) or (N, H, W), got {tuple(scores.shape)}.")
        check_same_shape(scores, labels)
        size = tuple(scores.shape[-2:])
        for image, mask in zip(scores.reshape(-1, *size), labels.reshape(-1, *size), strict=True):
            values, anomalous, weights, count = read_map(image, mask)
            bins = self._count(subject, values, anomalous)
            self.overlap[subject] += bins.bincount(
                torch.from_numpy(weights), minlength=len(self.edges) + 1
            )
            self.regions[subject] += count

    def _count(self, subject: int, scores: np.ndarray, anomalous: np.ndarray) -> Tensor:
        """Count flat scores; gives the bins of the anomalous ones."""
        bins = torch.bucketize(torch.from_numpy(scores).double(), self.edges, right=True)
        positive = torch.from_numpy(anomalous)
        for counts, chosen in ((self.positives, positive), (self.negatives, ~positive)):
            counts[subject] += bins[chosen].bincount(minlength=len(self.edges) + 1)
        return bins[positive]

    def metrics(self, weights: Tensor, *, fpr_limit: float = 0.3) -> dict[str, Tensor]:
        """The metrics on each resample; a row of ones gives them on the subjects themselves.

        Args:
            weights: ``(count, S)`` of :func:`resamples`.
            fpr_limit: of AUPRO, in (0, 1]; see :func:`~multiad_med.metrics.aupro`.

        Returns:
            ``auroc``, ``average_precision``, ``f1_max`` and, with regions, ``aupro``, float64
            ``(count,)`` each; NaN where a class was not drawn.

        Raises:
            InputError: when the weights do not fit or the limit is not in (0, 1].
        """
        check_weights(weights, len(self.regions))
        check_fpr_limit(fpr_limit)
        parts = []
        for rows in in_chunks(weights, self.positives.shape[1]):
            drawn = rows.double()
            found, false = ((drawn @ h).flip(1).cumsum(1) for h in (self.positives, self.negatives))
            part = ranking_metrics(found, false)
            if self.overlap is not None:
                overlap = (drawn @ self.overlap).flip(1).cumsum(1)
                pro = overlap / (drawn @ self.regions)[:, None]
                part["aupro"] = _area_to(pro, false / false[:, -1:], fpr_limit)
            parts.append(part)
        return joined(parts)


def _area_to(heights: Tensor, widths: Tensor, limit: float) -> Tensor:
    """Mean height of curves ``(C, T)`` from (0, 0), straight between points, up to a width."""
    y, x = from_zero(heights), from_zero(widths)
    step = x.diff(dim=1)
    share = ((limit - x[:, :-1]) / step).clamp(0, 1).where(step > 0, 0.0)
    end = y[:, :-1] + share * y.diff(dim=1)
    return (share * step * (y[:, :-1] + end) / 2).sum(1) / limit
