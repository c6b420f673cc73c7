"""Pixels of many subjects in little memory: a histogram per subject, and metrics of any resample."""

from __future__ import annotations

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

__all__ = ["SubjectHistograms", "map_edges"]

_SPAN = 9.0  # e to the 9th is 8,103


def map_edges(*, bins: int = 2048) -> Tensor:
    """Return edges for :class:`SubjectHistograms` of calibrated maps m / (m + t), for every data set.

    They are even in the logarithm of m / t, from 1/8,000 to 8,000 times the threshold t: 2,048 bins of
    0.9 % each. So counting can begin before any score is known.

    Args:
        bins: number of bins.

    Returns:
        float64, ascending, one fewer than ``bins``.

    Raises:
        InputError: when there are fewer than 4 bins.
    """
    if bins < 4:
        raise InputError(f"bins must be 4 or more, got {bins}.")
    return torch.linspace(-_SPAN, _SPAN, bins - 1, dtype=torch.float64).sigmoid()


class SubjectHistograms:
    """Scores of each subject's pixels as counts per bin, from which any resample is a product.

    Counts are exact at every edge, and curves are straight between edges, as if the scores of a bin
    were tied. Against the exact metric this costs

    * AUROC at most half the largest share of the normal pixels that one bin holds: about 0.002 where
      the logarithm of their scores has a deviation of 1 and bins are those of :func:`map_edges`;
    * AUPRO that share, divided by the limit: about 0.01 at 0.3;
    * average precision and the largest F1, which is never above the exact one, at most the share that
      a bin adds to what is flagged at its lower edge.

    These are bounds; smooth distributions come out ten times closer or better. Subjects are numbered
    from 0; the highest number seen gives how many there are.

    Args:
        edges: ascending, such as :func:`map_edges`.
        regions: whether scores are whole images and AUPRO is wanted.

    Raises:
        InputError: when the edges are not finite and ascending.
    """

    def __init__(self, edges: Tensor, *, regions: bool = False) -> None:
        self.edges = torch.as_tensor(edges).detach().cpu().double()
        if self.edges.ndim != 1 or not len(self.edges) or not self.edges.isfinite().all():
            raise InputError("edges must be a vector of one or more finite numbers.")
        if not (self.edges.diff() > 0).all():
            raise InputError("edges must be strictly ascending; see map_edges.")
        names = ("positives", "negatives", "overlap") if regions else ("positives", "negatives")
        self._counts: dict[str, list[Tensor]] = {name: [] for name in names}
        self._regions: list[float] = []

    @property
    def positives(self) -> Tensor:
        """Anomalous pixels, float64 ``(S, bins)``."""
        return torch.stack(self._counts["positives"])

    @property
    def negatives(self) -> Tensor:
        """Normal pixels, float64 ``(S, bins)``."""
        return torch.stack(self._counts["negatives"])

    def update(self, subject: int, scores: Tensor, labels: Tensor) -> None:
        """Add pixels of a subject.

        Args:
            subject: its number, 0 or more.
            scores: any shape; with regions ``(H, W)`` or ``(N, H, W)``, whole images.
            labels: same shape, anomalous where not 0.

        Raises:
            InputError: when shapes do not fit, a score is not finite, or the subject is negative.
        """
        if subject < 0:
            raise InputError(f"subject must be 0 or more, got {subject}.")
        while len(self._regions) <= subject:
            for rows in self._counts.values():
                rows.append(torch.zeros(len(self.edges) + 1, dtype=torch.float64))
            self._regions.append(0.0)
        if "overlap" not in self._counts:
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
            self._counts["overlap"][subject] += bins.bincount(
                torch.from_numpy(weights), minlength=len(self.edges) + 1
            )
            self._regions[subject] += count

    def _count(self, subject: int, scores: np.ndarray, anomalous: np.ndarray) -> Tensor:
        """Count flat scores; return the bins of the anomalous ones."""
        bins = torch.bucketize(torch.from_numpy(scores).double(), self.edges, right=True)
        positive = torch.from_numpy(anomalous)
        for name, chosen in (("positives", positive), ("negatives", ~positive)):
            self._counts[name][subject] += bins[chosen].bincount(minlength=len(self.edges) + 1)
        return bins[positive]

    def metrics(self, weights: Tensor, *, fpr_limit: float = 0.3) -> dict[str, Tensor]:
        """Return the metrics on each resample; a row of ones gives them on the subjects themselves.

        Args:
            weights: ``(count, S)`` of :func:`resamples`.
            fpr_limit: of AUPRO, in (0, 1]; see :func:`~multiad_med.metrics.aupro`.

        Returns:
            ``auroc``, ``average_precision``, ``f1_max`` and, with regions, ``aupro``, float64
            ``(count,)`` each; NaN where a class was not drawn.

        Raises:
            InputError: when the weights do not fit or the limit is not in (0, 1].
        """
        check_weights(weights, len(self._regions))
        check_fpr_limit(fpr_limit)
        counts = {name: torch.stack(rows) for name, rows in self._counts.items()}
        regions = torch.tensor(self._regions, dtype=torch.float64)
        parts = []
        for rows in in_chunks(weights, len(self.edges) + 1):
            drawn = rows.double()
            above = {name: (drawn @ its).flip(1).cumsum(1) for name, its in counts.items()}
            false = above["negatives"]
            part = ranking_metrics(above["positives"], false)
            if "overlap" in above:
                pro = above["overlap"] / (drawn @ regions)[:, None]
                part["aupro"] = _area_to(pro, false / false[:, -1:], fpr_limit)
            parts.append(part)
        return joined(parts)


def _area_to(heights: Tensor, widths: Tensor, limit: float) -> Tensor:
    """Return the mean height of curves ``(C, T)`` from (0, 0), straight between points, up to a width."""
    y, x = from_zero(heights), from_zero(widths)
    step = x.diff(dim=1)
    share = ((limit - x[:, :-1]) / step).clamp(0, 1).where(step > 0, 0.0)
    end = y[:, :-1] + share * y.diff(dim=1)
    return (share * step * (y[:, :-1] + end) / 2).sum(1) / limit
