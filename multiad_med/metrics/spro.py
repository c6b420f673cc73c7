"""Area under the saturated per-region-overlap curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from multiad_med.metrics.aupro import MapWeights, area_of_weights, check_fpr_limit, check_map
from multiad_med.metrics.counting import as_anomalous, as_scores
from multiad_med.utils.errors import InputError

__all__ = ["Region", "read_regions", "spro"]


class Region(NamedTuple):
    """A region that counts as found when enough of it is flagged.

    Attributes:
        mask: ``(H, W)``, the region where not 0.
        saturation: number of its pixels that is enough, positive and at most its area.
    """

    mask: Tensor | NDArray[Any]
    saturation: float


def spro(
    maps: Sequence[Tensor | NDArray[Any]],
    regions: Sequence[Sequence[Region]],
    *,
    fpr_limit: float = 0.05,
) -> float:
    """Return area under the sPRO curve up to a false-positive rate, divided by that rate. Exact.

    sPRO at a threshold is, averaged over all regions of all images, the number of flagged pixels of
    the region divided by its saturation, at most 1; the false-positive rate is over the pixels in no
    region, of all images (Bergmann et al., Beyond Dents and Scratches, IJCV 2022). Where every
    saturation is the region's area it is :func:`multiad_med.metrics.aupro`. Every distinct score is a
    threshold, and the curve is linear between thresholds.

    Args:
        maps: anomaly maps ``(H, W)``, tensors or arrays; images may differ in size.
        regions: of each map, which may overlap; none of a normal image.
        fpr_limit: in (0, 1].

    Returns:
        A value in [0, 1]; NaN when there is no region or no normal pixel.

    Raises:
        InputError: when numbers or shapes differ, there are no maps, a map is not ``(H, W)`` or not
            finite, a region is empty, a saturation is not in (0, area], or the limit is not in (0, 1].
    """
    check_fpr_limit(fpr_limit)
    if len(maps) != len(regions) or not len(maps):
        raise InputError(
            f"Got {len(maps)} maps and regions of {len(regions)}; give a list of regions for each map, "
            "empty for a normal image, and at least one map."
        )
    return area_of_weights(
        [read_regions(m, own) for m, own in zip(maps, regions, strict=True)], fpr_limit
    )


def read_regions(anomaly_map: Tensor | NDArray[Any], regions: Sequence[Region]) -> MapWeights:
    """Return scores, and what each pixel of a region adds to the curve once it is flagged.

    Of each region that is 1 / saturation for its highest pixels, and nothing for those that come when
    it is saturated.

    Raises:
        InputError: see :func:`spro`.
    """
    check_map(anomaly_map)
    scores = as_scores(anomaly_map)
    weights = np.zeros(scores.size)
    inside = np.zeros(scores.size, bool)
    for mask, saturation in regions:
        check_map(anomaly_map, mask)
        pixels = np.flatnonzero(as_anomalous(mask))
        if not 0 < saturation <= pixels.size:
            raise InputError(
                f"A region of {pixels.size} pixels has the saturation {saturation}; it is above 0 and at "
                "most the region's area."
            )
        highest_first = pixels[np.argsort(-scores[pixels], kind="stable")]
        found = np.minimum(np.arange(pixels.size + 1) / saturation, 1)
        weights[highest_first] += np.diff(found)
        inside[pixels] = True
    return MapWeights(scores, inside, weights.compress(inside), len(regions))
