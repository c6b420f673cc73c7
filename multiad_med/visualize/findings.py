"""Where to look first in a study's map: its worst slice, its findings, the body around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from multiad_med.visualize.viewed_study import AIR, ViewedStudy

__all__ = ["Finding", "body_box", "find", "worst_slice"]

MOST = 99
"""Most findings; of more, those with the highest values."""

_MARGIN = 0.04  # of the body, around it
_TISSUE = 0.1  # of the range that is shown; air and noise lie below


@dataclass(frozen=True)
class Finding:
    """A connected part of the map that reaches the threshold.

    Attributes:
        at: voxel of its highest value.
        value: the highest value.
        first, last: first and last slice that it reaches.
    """

    at: tuple[int, int, int]
    value: float
    first: int
    last: int


def worst_slice(study: ViewedStudy) -> int:
    """Return the slice with the highest score, or without scores the highest map value."""
    values = study.slice_values()
    return int(np.nanargmax(values)) if np.isfinite(values).any() else 0


def find(study: ViewedStudy) -> list[Finding]:
    """Return the findings, 26-connected, the highest first."""
    labels, count = ndimage.label(study.anomaly_map >= study.threshold, np.ones((3, 3, 3)))
    if not count:
        return []
    inside = np.nonzero(labels)
    values = study.anomaly_map[inside]
    falling = np.argsort(-values, kind="stable")
    _, first = np.unique(labels[inside][falling], return_index=True)
    boxes = ndimage.find_objects(labels)
    found = []
    for place in np.sort(first)[:MOST]:
        peak = falling[place]
        at = int(inside[0][peak]), int(inside[1][peak]), int(inside[2][peak])
        slices = boxes[labels[at] - 1][2]
        found.append(Finding(at, float(values[peak]), slices.start, slices.stop - 1))
    return found


def body_box(study: ViewedStudy) -> tuple[slice, slice]:
    """Return the part of every slice that holds the body and all findings; of B-scans the whole.

    The body is the largest connected part that is brighter than air and noise in any slice, so a
    scanner's table stays outside where there is air between.
    """
    columns, rows = study.image.shape[:2]
    if study.bscans:
        return slice(0, columns), slice(0, rows)
    low, high = study.limits
    air = AIR if study.hounsfield else low + _TISSUE * (high - low)
    tissue = ndimage.binary_opening((study.image > air).any(axis=2), np.ones((3, 3)))
    labels, count = ndimage.label(tissue)
    if count:
        tissue = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        tissue |= (study.anomaly_map >= study.threshold).any(axis=2)
    else:
        tissue = np.ones((columns, rows), bool)
    found = []
    for axis in (0, 1):
        inside = np.flatnonzero(tissue.any(axis=1 - axis))
        margin = 1 + int(_MARGIN * (inside[-1] - inside[0]))
        found.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + margin + 1))
    return found[0], found[1]
