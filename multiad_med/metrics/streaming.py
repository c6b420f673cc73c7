"""AUROC, average precision, largest F1, AUPRO and sPRO of any number of pixels in fixed memory."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from multiad_med.metrics.aupro import MapWeights, check_fpr_limit, mean_reach, read_map
from multiad_med.metrics.counting import as_anomalous, as_scores, check_same_shape, ordered_keys
from multiad_med.metrics.spro import Region, read_regions
from multiad_med.utils.errors import InputError

__all__ = ["StreamingAupro", "StreamingRanking", "StreamingSpro"]

PROMISED = 1e-4
PAGE_LOG2 = 10  # a page is the float32 values that share their upper 22 bits
PAGES = 1 << (32 - PAGE_LOG2)
BINS = PAGES  # so that even when a score lies on every page, each has a bin
CHUNK = 1 << 18


class _Histogram:
    """Numbers of normal items and weights of anomalous ones by score, in 2^22 bins at most.

    A bin is a run of neighbouring float32 values. Bins are given out in pages of 2^10 values, to pages
    that hold a score, one value per bin; when they run out, all bins are joined in pairs. So bins
    are as fine as the scores seen allow, whatever their range; at the coarsest, with a score on every
    page, 2^10 values wide (13 bits of mantissa). Their width does not depend on the scores' order.
    """

    def __init__(self, weight_dtype: type[np.number[Any]]) -> None:
        self.normals = np.zeros(BINS, np.int64)
        self.weights = np.zeros(BINS, weight_dtype)
        self.rounded = False
        self._slot_of_page = np.full(PAGES, -1, np.int32)
        self._pages = np.empty(0, np.int64)
        self._joined = 0

    @property
    def exact(self) -> bool:
        """Whether every bin holds one value only."""
        return not self._joined and not self.rounded

    @property
    def _filled(self) -> int:
        return self._pages.size << (PAGE_LOG2 - self._joined)

    def add(
        self, scores: NDArray[Any], anomalous: NDArray[np.bool_], weights: NDArray[Any] | int
    ) -> None:
        """Count float32 scores ``(N,)``; weights are a number, or one per anomalous score, in order."""
        keys = ordered_keys(scores)
        pages = keys >> np.uint32(PAGE_LOG2)
        slots = self._slot_of_page[pages]
        if slots.min(initial=0) < 0:
            self._give_bins(np.unique(pages.compress(slots < 0)))
            slots = self._slot_of_page[pages]
        bins = slots.astype(np.intp) << (PAGE_LOG2 - self._joined)
        bins |= (keys & np.uint32((1 << PAGE_LOG2) - 1)) >> np.uint32(self._joined)
        np.add.at(self.normals, bins.compress(~anomalous), 1)
        np.add.at(self.weights, bins.compress(anomalous), weights)

    def descending(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield normals and weights of bins that are not empty, from the highest score down, in parts."""
        width = 1 << (PAGE_LOG2 - self._joined)
        normals, weights = (
            counts[: self._filled].reshape(-1, width) for counts in (self.normals, self.weights)
        )
        order = np.argsort(self._pages)[::-1]
        for start in range(0, order.size, CHUNK // width):
            pages = order[start : start + CHUNK // width]
            normal, weight = normals[pages, ::-1].ravel(), weights[pages, ::-1].ravel()
            kept = (normal > 0) | (weight > 0)
            yield normal[kept], weight[kept]

    def _give_bins(self, new: NDArray[Any]) -> None:
        """Give bins to distinct pages that have none."""
        total = self._pages.size + new.size
        while total << (PAGE_LOG2 - self._joined) > BINS:
            self._join_bins()
        self._slot_of_page[new] = np.arange(self._pages.size, total)
        self._pages = np.concatenate([self._pages, new])

    def _join_bins(self) -> None:
        for counts in (self.normals, self.weights):
            pairs = counts[: self._filled].reshape(-1, 2).sum(1)
            counts[: self._filled] = 0
            counts[: pairs.size] = pairs
        self._joined += 1


def _as_single(scores: NDArray[Any]) -> tuple[NDArray[np.float32], bool]:
    """Return scores in float32, and whether any was rounded."""
    single = scores.astype(np.float32, copy=False)
    if single is scores:
        return single, False
    over = int(np.isinf(single).sum())
    if over:
        raise InputError(
            f"{over} scores exceed float32's range (3.4e38), of {scores.size}; scale all scores "
            "down, or use the exact metric."
        )
    return single, bool((single != scores).any())


def _within_promise(name: str, value: float, bound: float) -> float:
    if bound > PROMISED:
        warnings.warn(
            f"{name} {value:.6f} may be off by {bound:.1e}, more than {PROMISED:.0e}: many scores of "
            "both classes lie closer together than a bin is wide, or there are few anomalous ones. "
            "Use the exact metric (Ranking or aupro).",
            stacklevel=3,
        )
    return value


class StreamingRanking:
    """AUROC, average precision and largest F1 of scores that come in parts, in about 100 MiB.

    Scores of any range are counted in up to 4.2 million bins of neighbouring float32 values. A result
    is usually off by less than 1e-5; see :attr:`error_bound`. Above 1e-4 there is a warning. Where each
    bin holds one value, as with scores of few distinct values or in a narrow range, results are exact.
    """

    def __init__(self) -> None:
        self._histogram = _Histogram(np.int64)
        self._metrics: dict[str, tuple[float, float]] | None = None

    def update(self, scores: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]) -> None:
        """Add scores of any shape, and labels of the same shape, anomalous where not 0.

        Raises:
            InputError: when the shapes differ, a score is not finite or beyond float32, or a label
                is NaN.
        """
        check_same_shape(scores, labels)
        values, rounded = _as_single(as_scores(scores))
        anomalous = as_anomalous(labels)
        self._metrics = None
        self._histogram.rounded |= rounded
        for start in range(0, values.size, CHUNK):
            part = slice(start, start + CHUNK)
            self._histogram.add(values[part], anomalous[part], 1)

    @property
    def auroc(self) -> float:
        """Area under the ROC curve; NaN when a class is missing.

        Raises:
            InputError: when no score has been added, as for every other metric.
        """
        return _within_promise("AUROC", *self._computed["auroc"])

    @property
    def average_precision(self) -> float:
        """Precision averaged over the steps of recall; NaN without an anomalous item."""
        return _within_promise("Average precision", *self._computed["average_precision"])

    @property
    def f1_max(self) -> float:
        """Largest F1 over all thresholds between bins; NaN without an anomalous item."""
        return _within_promise("F1", *self._computed["f1_max"])

    @property
    def error_bound(self) -> dict[str, float]:
        """Largest possible distance from the exact value, by metric; NaN where the value is NaN.

        Results count the scores in each bin as tied. The exact ones lie between the results of the best
        and of the worst order within the bins, which are measured here.
        """
        return {name: bound for name, (_, bound) in self._computed.items()}

    @property
    def _computed(self) -> dict[str, tuple[float, float]]:
        if self._metrics is None:
            self._metrics = self._compute()
        return self._metrics

    def _compute(self) -> dict[str, tuple[float, float]]:
        negatives, positives = (
            int(counts.sum()) for counts in (self._histogram.normals, self._histogram.weights)
        )
        if not negatives + positives:
            raise InputError("There are no scores; call update() before asking for a metric.")
        metrics = dict.fromkeys(("auroc", "average_precision", "f1_max"), (math.nan, math.nan))
        if not positives:
            return metrics
        true = false = 0
        area = area_off = precision = best_precision = worst_precision = f1 = best_f1 = 0.0
        for normal, tied in self._histogram.descending():
            true_after, false_after = true + np.cumsum(tied), false + np.cumsum(normal)
            true_before, false_before = true_after - tied, false_after - normal
            true, false = int(true_after[-1]), int(false_after[-1])
            area += float(tied @ (negatives - (false_before + false_after) / 2))
            area_off += float(tied @ (normal / 2))
            precision += float(tied @ (true_after / (true_after + false_after)))
            best_precision += float(tied @ (true_after / np.maximum(true_after + false_before, 1)))
            worst_precision += _worst_precision(tied, true_before, false_after)
            f1 = max(f1, float((2 * true_after / (true_after + false_after + positives)).max()))
            best = 2 * true_after / (true_after + false_before + positives)
            best_f1 = max(best_f1, float(best.max()))
        inexact = 0.0 if self._histogram.exact else 1.0
        off = max(best_precision - precision, precision - worst_precision)
        metrics["average_precision"] = precision / positives, inexact * off / positives
        metrics["f1_max"] = f1, inexact * (best_f1 - f1)
        if negatives:
            pairs = float(positives) * negatives
            metrics["auroc"] = area / pairs, inexact * area_off / pairs
        return metrics


def _worst_precision(
    tied: NDArray[np.int64], true_before: NDArray[np.int64], false_after: NDArray[np.int64]
) -> float:
    """Return a lower bound on the sum of anomalous items' precisions with each bin's normals first.

    The i-th has precision (t + i) / (t + i + f); the sum over i to n of 1 / (t + i + f) is at most
    log(1 + n / (t + f)).
    """
    start = true_before + false_after
    several = tied - false_after * np.log1p(tied / np.maximum(start, 1))
    worst = np.where(tied > 1, several, (true_before + 1) / (start + 1))
    return float(worst.sum(where=tied > 0))


class _StreamingRegions:
    """Area under a curve of regions' weights, of maps that come in parts, in about 100 MiB."""

    def __init__(self, *, fpr_limit: float) -> None:
        check_fpr_limit(fpr_limit)
        self.fpr_limit = fpr_limit
        self._histogram = _Histogram(np.float64)
        self._regions = 0
        self._figure: tuple[float, float] | None = None

    def _add(self, images: Sequence[MapWeights]) -> None:
        singles = [_as_single(image.scores) for image in images]
        self._figure = None
        for (single, rounded), image in zip(singles, images, strict=True):
            self._histogram.rounded |= rounded
            self._histogram.add(single, image.lesion, image.weights)
            self._regions += image.regions

    @property
    def error_bound(self) -> float:
        """Largest possible distance from the exact value; NaN where the value is NaN."""
        return self._computed[1]

    @property
    def _computed(self) -> tuple[float, float]:
        if self._figure is None:
            self._figure = self._compute()
        return self._figure

    def _compute(self) -> tuple[float, float]:
        normals = int(self._histogram.normals.sum())
        if not normals + self._regions:
            raise InputError("There are no maps; call update() before asking for a metric.")
        if not normals or not self._regions:
            return math.nan, math.nan
        false = 0
        value = best = worst = 0.0
        for normal, weight in self._histogram.descending():
            false_after = false + np.cumsum(normal)
            before, after = (false_after - normal) / normals, false_after / normals
            false = int(false_after[-1])
            value += float(weight @ mean_reach(before, after, self.fpr_limit))
            best += float(weight @ np.maximum(self.fpr_limit - before, 0))
            worst += float(weight @ np.maximum(self.fpr_limit - after, 0))
        value, best, worst = (x / self._regions / self.fpr_limit for x in (value, best, worst))
        return value, 0.0 if self._histogram.exact else max(best - value, value - worst)


class StreamingAupro(_StreamingRegions):
    """AUPRO of maps that come in parts, in about 100 MiB; see :func:`~multiad_med.metrics.aupro`.

    Bins, error and warning are those of :class:`StreamingRanking`. Regions are found in each map, so a
    map must come whole.

    Args:
        fpr_limit: in (0, 1].

    Raises:
        InputError: when the limit is not in (0, 1].
    """

    def __init__(self, *, fpr_limit: float = 0.3) -> None:
        super().__init__(fpr_limit=fpr_limit)

    def update(
        self,
        maps: Sequence[Tensor | NDArray[Any]] | Tensor | NDArray[Any],
        masks: Sequence[Tensor | NDArray[Any]] | Tensor | NDArray[Any],
    ) -> None:
        """Add maps ``(H, W)``, which may differ in size, and their masks, lesion where not 0.

        Raises:
            InputError: when numbers or shapes differ, a map is not ``(H, W)``, not finite or beyond
                float32, or a mask holds NaN.
        """
        if len(maps) != len(masks):
            raise InputError(f"Got {len(maps)} maps and {len(masks)} masks; give one mask per map.")
        self._add([read_map(m, mask) for m, mask in zip(maps, masks, strict=True)])

    @property
    def aupro(self) -> float:
        """Area under the PRO curve up to the limit, divided by it; NaN when a class is missing.

        Raises:
            InputError: when no map has been added.
        """
        return _within_promise("AUPRO", *self._computed)


class StreamingSpro(_StreamingRegions):
    """sPRO of maps that come in parts, in about 100 MiB; see :func:`~multiad_med.metrics.spro`.

    Bins, error and warning are those of :class:`StreamingRanking`.

    Args:
        fpr_limit: in (0, 1].

    Raises:
        InputError: when the limit is not in (0, 1].
    """

    def __init__(self, *, fpr_limit: float = 0.05) -> None:
        super().__init__(fpr_limit=fpr_limit)

    def update(self, anomaly_map: Tensor | NDArray[Any], regions: Sequence[Region]) -> None:
        """Add a map ``(H, W)`` and its regions, none of a normal image.

        Raises:
            InputError: see :func:`~multiad_med.metrics.spro`.
        """
        self._add([read_regions(anomaly_map, regions)])

    @property
    def spro(self) -> float:
        """Area under the sPRO curve up to the limit, divided by it; NaN when a class is missing.

        Raises:
            InputError: when no map has been added.
        """
        return _within_promise("sPRO", *self._computed)
