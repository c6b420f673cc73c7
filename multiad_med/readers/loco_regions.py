"""Defects of MVTec LOCO as regions, each with the area from which it counts as found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets.mvtec import loco_saturation
from multiad_med.metrics import Region
from multiad_med.readers.image_file import open_image

__all__ = ["is_loco", "loco_regions"]

_DEPTH = 3  # <category>/ground_truth/<kind>/<image>/000.png


def is_loco(mask: Path) -> bool:
    """Tell whether a mask lies where MVTec LOCO's do, below a list of saturation thresholds."""
    return len(mask.parents) > _DEPTH and (mask.parents[_DEPTH] / "defects_config.json").is_file()


def loco_regions(masks: Sequence[Path]) -> list[Region]:
    """Read an image's masks, each one defect, whose pixel value tells its kind.

    The saturation is the published threshold: a number of pixels, at most the defect's, or a fraction
    of them.

    Args:
        masks: ``<category>/ground_truth/<kind>/<image>/000.png`` and so on; none of a normal image.

    Raises:
        DatalistError: when the thresholds cannot be read, or have none for a mask's value.
        ImageError: when a mask cannot be read.
    """
    regions = []
    for path in masks:
        thresholds = loco_saturation(path.parents[_DEPTH])
        values = open_image(path).labels()
        for value in np.unique(values[values > 0]).tolist():
            if value not in thresholds:
                raise DatalistError(
                    f"{path} has the value {value}, of which defects_config.json says nothing; it knows "
                    f"{sorted(thresholds)}. Restore the published files."
                )
            threshold, relative = thresholds[value]
            area = int((values == value).sum())
            saturation = threshold * area if relative else min(threshold, area)
            regions.append(Region(values == value, saturation))
    return regions
