"""A volume in one image: its worst slice under the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiad_med.scoring import decision
from multiad_med.visualize.colours import overlaid
from multiad_med.visualize.findings import body_box, worst_slice
from multiad_med.visualize.overlay_file import save_overlay
from multiad_med.visualize.viewed_study import ViewedStudy

__all__ = ["write_overlay"]

_SIDE = 512  # pixels of the longer side


def write_overlay(study: ViewedStudy, path: Path) -> None:
    """Write the worst slice, cropped to the body, under the map, with score, verdict and colours.

    Axial slices are shown as radiologists see them, B-scans upright as stored.
    """
    index = worst_slice(study)
    box = (*body_box(study), index)
    across, along, _ = study.spacing
    low, high = study.limits
    grey = ((study.image[box] - low) / ((high - low) or 1)).clip(0, 1)
    planes = [study.looked_at(plane) for plane in (grey, study.anomaly_map[box])]
    height, width = planes[0].shape[0] * along, planes[0].shape[1] * across
    factor = _SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))

    def resized(plane: NDArray[np.floating]) -> NDArray[np.float32]:
        image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))

    image, heat = (resized(plane) for plane in planes)
    shown = (image[..., None] * 255).round().astype(np.uint8).repeat(3, axis=2)
    side = "" if study.bscans else "; the patient's right is on the left"
    save_overlay(
        path,
        overlaid(shown, heat, threshold=study.threshold),
        f"{decision(study.scores)}. Slice {study.source_slice(index)} of the file{side}.",
    )
