"""Area under the per-region-overlap curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from skimage.measure import label as connected_components
from torch import Tensor

__all__ = ["aupro"]


def aupro(maps: Sequence[Tensor], masks: Sequence[Tensor], *, fpr_limit: float = 0.3) -> float:
    """Area under the PRO curve up to a false-positive rate, divided by that rate. Exact.

    PRO at a threshold is the overlap of the flagged pixels with each 8-connected lesion region,
    averaged over all regions of all images; the false-positive rate is over the normal pixels of all
    images (Bergmann et al., MVTec AD). Every distinct score is a threshold, and the curve is
    linear between thresholds.

    Args:
        maps: anomaly maps ``(H, W)``; images may differ in size.
        masks: lesion masks of the same shapes, lesion where not 0.
        fpr_limit: in (0, 1].

    Returns:
        A value in [0, 1]; NaN when there is no lesion or no normal pixel.

    Raises:
        ValueError: when numbers or shapes differ, there are no maps, a map is not finite, or the
            limit is not in (0, 1].
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must lie in (0, 1], got {fpr_limit}.")
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"Got {len(maps)} maps and {len(masks)} masks.")
    weights, regions = [], 0
    for anomaly_map, mask in zip(maps, masks, strict=True):
        if anomaly_map.shape != mask.shape:
            raise ValueError(
                f"A map {tuple(anomaly_map.shape)} and its mask {tuple(mask.shape)} differ in shape."
            )
        components, count = connected_components(
            np.asarray(mask) != 0, connectivity=2, return_num=True
        )
        sizes = np.bincount(components.ravel(), minlength=count + 1).astype(float)
        sizes[0] = np.inf
        weights.append(torch.from_numpy((1.0 / sizes)[components].ravel()))
        regions += count
    scores = torch.cat([torch.as_tensor(m).flatten().float() for m in maps])
    if not torch.isfinite(scores).all():
        raise ValueError(f"{int((~torch.isfinite(scores)).sum())} scores are NaN or infinite.")
    weight = torch.cat(weights)
    normal = weight == 0
    if regions == 0 or not normal.any():
        return float("nan")

    ordered, order = scores.sort(descending=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    pro = weight[order].cumsum(0)[last] / regions
    fpr = normal[order].cumsum(0)[last].double() / normal.sum()
    zero = pro.new_zeros(1)
    pro, fpr = torch.cat([zero, pro]), torch.cat([zero, fpr])
    inside = int((fpr <= fpr_limit).sum())
    if inside < len(fpr):
        part = (fpr_limit - fpr[inside - 1]) / (fpr[inside] - fpr[inside - 1])
        end = pro[inside - 1] + part * (pro[inside] - pro[inside - 1])
        pro = torch.cat([pro[:inside], end[None]])
        fpr = torch.cat([fpr[:inside], fpr.new_full((1,), fpr_limit)])
    return float(torch.trapezoid(pro, fpr)) / fpr_limit
