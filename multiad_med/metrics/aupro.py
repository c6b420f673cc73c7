"""Area under the per-region-overlap curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from multiad_med.metrics.counting import as_anomalous, as_scores, count_from
from multiad_med.utils.errors import InputError

__all__ = [
    "MapWeights",
    "area_of_weights",
    "aupro",
    "check_fpr_limit",
    "check_map",
    "mean_reach",
    "read_map",
]


def aupro(
    maps: Sequence[Tensor | NDArray[Any]],
    masks: Sequence[Tensor | NDArray[Any]],
    *,
    fpr_limit: float = 0.3,
) -> float:
    """Return the area under the PRO curve up to a false-positive rate, divided by it. Exact.

    PRO at a threshold is the overlap of the flagged pixels with each 8-connected lesion region,
    averaged over all regions of all images; the false-positive rate is over the normal pixels of all
    images (Bergmann et al., MVTec AD, IJCV 2021). Every distinct score is a threshold, and the curve
    is linear between thresholds.

    Args:
        maps: anomaly maps ``(H, W)``, tensors or arrays; images may differ in size.
        masks: lesion masks of the same shapes, lesion where not 0.
        fpr_limit: in (0, 1].

    Returns:
        A value in [0, 1]; NaN when there is no lesion or no normal pixel.

    Raises:
        InputError: when numbers or shapes differ, there are no maps or no pixels, a map is not
            ``(H, W)`` or not finite, a mask holds NaN, or the limit is not in (0, 1].
    """
    check_fpr_limit(fpr_limit)
    if len(maps) != len(masks) or not len(maps):
        raise InputError(
            f"Got {len(maps)} maps and {len(masks)} masks; give one mask per map, and at least one."
        )
    return area_of_weights(
        [read_map(m, mask) for m, mask in zip(maps, masks, strict=True)], fpr_limit
    )


class MapWeights(NamedTuple):
    """A map's scores, and what each of its lesion pixels adds to a curve once it is flagged.

    Attributes:
        scores: ``(H W,)``.
        lesion: ``(H W,)``, whether a pixel is of a lesion.
        weights: ``(lesion pixels,)``, in the same order; they add up to the number of regions.
        regions: their number.
    """

    scores: NDArray[Any]
    lesion: NDArray[np.bool_]
    weights: NDArray[np.float64]
    regions: int


def area_of_weights(images: Sequence[MapWeights], fpr_limit: float) -> float:
    """Return the area under the curve of the flagged weights up to a false-positive rate, over both.

    Args:
        images: at least one.
        fpr_limit: in (0, 1].

    Returns:
        A value in [0, 1]; NaN when there is no region or no normal pixel.
    """
    scores = np.concatenate([image.scores for image in images])
    lesion = np.concatenate([image.lesion for image in images])
    weights = np.concatenate([image.weights for image in images])
    regions = sum(image.regions for image in images)
    normals = scores.size - weights.size
    if not regions or not normals:
        return math.nan

    thresholds, group = np.unique(scores.compress(lesion), return_inverse=True)
    weight = np.bincount(group, weights)
    tied = np.bincount(group)
    above, reached = count_from(scores, thresholds)
    lesion_reached = np.cumsum(tied[::-1])[::-1]
    before = (above - lesion_reached + tied) / normals
    after = (reached - lesion_reached) / normals
    return float(weight @ mean_reach(before, after, fpr_limit)) / regions / fpr_limit


def check_fpr_limit(fpr_limit: float) -> None:
    """Refuse an impossible false-positive rate.

    Raises:
        InputError: when the limit is not in (0, 1].
    """
    if not 0 < fpr_limit <= 1:
        raise InputError(f"fpr_limit must lie in (0, 1], got {fpr_limit}; 0.3 is customary.")


def check_map(
    anomaly_map: Tensor | NDArray[Any], mask: Tensor | NDArray[Any] | None = None
) -> None:
    """Refuse a map that is not ``(H, W)``, or a mask of another shape.

    Raises:
        InputError: when the shapes differ, are not ``(H, W)`` or hold no pixel.
    """
    height_width = tuple(anomaly_map.shape)
    if mask is not None and height_width != tuple(mask.shape):
        raise InputError(
            f"A map {height_width} and its mask {tuple(mask.shape)} differ in shape; "
            "resize the mask (nearest) or the map."
        )
    if len(height_width) != 2 or 0 in height_width:
        raise InputError(
            f"A map must be (H, W) with at least one pixel, got {height_width}; regions are those "
            "of one image, so give a list of images and take the channel away."
        )


def read_map(anomaly_map: Tensor | NDArray[Any], mask: Tensor | NDArray[Any]) -> MapWeights:
    """Return scores, lesion pixels, and 1 / area of its 8-connected region for each lesion pixel.

    Raises:
        InputError: when the shapes differ, are not ``(H, W)`` or hold no pixel, a score is not
            finite, or the mask holds NaN.
    """
    check_map(anomaly_map, mask)
    scores, lesion = as_scores(anomaly_map), as_anomalous(mask)
    if not lesion.any():
        return MapWeights(scores, lesion, np.empty(0), 0)
    labels, regions = ndimage.label(lesion.reshape(tuple(anomaly_map.shape)), np.ones((3, 3)))
    region = labels.ravel().compress(lesion)
    return MapWeights(scores, lesion, 1.0 / np.bincount(region)[region], regions)


def mean_reach(
    before: NDArray[np.float64], after: NDArray[np.float64], limit: float
) -> NDArray[np.float64]:
    """Return how far below the limit rates between ``before`` and ``after`` lie on average.

    A lesion pixel flagged at the false-positive rate x adds its weight to the curve from x to the
    limit. Flagged with normal pixels of the same score, it does so evenly from the rate ``before``
    them to the rate ``after`` them.
    """
    crossing = np.maximum(limit - before, 0) ** 2 / (2 * np.maximum(after - before, 1e-300))
    return np.where(after <= limit, limit - (before + after) / 2, crossing)
