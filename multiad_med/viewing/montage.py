"""The montage of a study: its slices with the highest map, among evenly spaced others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multiad_med.io import MontageColumn, save_montage
from multiad_med.viewing.study import ViewedStudy, decision

__all__ = ["choose_slices", "write_montage"]

_HIGHEST = 3
_COLUMNS = 8
_APART = 20  # of so many parts of the study, one lies between two of the highest slices


def choose_slices(values: NDArray[np.floating]) -> tuple[list[int], set[int]]:
    """Which slices a montage shows, in order, and which of them have the highest values.

    The highest are taken first, each a twentieth of the study away from those before it, so that
    they are not three neighbours in one lesion; then evenly spaced ones from the first to the last
    slice that has a value.

    Args:
        values: of each slice; NaN where a slice has next to nothing in it.
    """
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        known, values = np.arange(len(values)), np.zeros(len(values))
    gap = max(1, len(known) // _APART)
    highest: list[int] = []
    for index in known[np.argsort(-values[known], kind="stable")]:
        if len(highest) < _HIGHEST and all(abs(index - other) > gap for other in highest):
            highest.append(int(index))
    evenly = np.linspace(0, len(known) - 1, _COLUMNS - len(highest) + 2).round().astype(int)[1:-1]
    return sorted({*highest, *(int(i) for i in known[evenly])}), set(highest)


def write_montage(study: ViewedStudy, path: Path) -> None:
    """Draw the chosen slices as radiologists see them; a triangle marks those with the highest map.

    B-scans are shown upright as stored. Slices are numbered as in the study's file.
    """
    values = study.slice_values()
    chosen, highest = choose_slices(values)
    columns = []
    for index in chosen:
        image, heat = study.image[..., index], study.anomaly_map[..., index]
        across, along, _ = study.spacing
        if study.bscans:  # turned over by the affine, and from (columns, rows) to (rows, columns)
            image, heat = image[:, ::-1].T, heat[:, ::-1].T
            across, along = along, across
        value = "empty" if np.isnan(values[index]) else f"{values[index]:.3f}"
        mark = "\N{BLACK UP-POINTING TRIANGLE} " if index in highest else ""
        columns.append(
            MontageColumn(
                title=f"{mark}slice {study.source_slice(index)}: {value}",
                image=image,
                anomaly_map=heat,
                spacing=(across, along),
                upright=study.bscans,
                limits=study.limits,
            )
        )
    save_montage(columns, path, title=f"{study.name}\n{decision(study.scores)}")
