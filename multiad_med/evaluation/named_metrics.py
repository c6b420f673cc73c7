"""The metrics of an evaluation by their names in files, without intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from multiad_med.evaluation.evaluation import finite_or_none
from multiad_med.metrics import Ranking

__all__ = ["METRICS", "named_metrics"]

METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "foreground_pixel_auroc",
    "foreground_pixel_ap",
    "aupro",
)


def named_metrics(
    scores: Tensor, abnormal: Tensor, pixels: Mapping[str, float]
) -> dict[str, float | None]:
    """Return metrics by the names of :data:`METRICS`, without intervals.

    Args:
        scores, abnormal: of every slice.
        pixels: metrics of pixels; some may be missing.
    """
    images = Ranking(scores, abnormal)
    found = {
        **pixels,
        "image_auroc": images.auroc,
        "image_ap": images.average_precision,
        "image_f1_max": images.f1_max,
    }
    return {name: finite_or_none(found.get(name, math.nan)) for name in METRICS}
