"""The montage of a study: its slices with the highest map, among others far from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multiad_med.scoring import decision
from multiad_med.visualize.findings import Finding, body_box, find
from multiad_med.visualize.slice_rows import MontageColumn, save_montage
from multiad_med.visualize.viewed_study import ViewedStudy

__all__ = ["choose_slices", "write_montage"]

_HIGHEST = 3
_COLUMNS = 8
_APART = 20  # two slices lie at least this part of the study apart


def choose_slices(
    values: NDArray[np.floating], findings: Sequence[Finding] = ()
) -> tuple[list[int], set[int]]:
    """Return which slices a montage shows, in order, and which of them have the highest values.

    The highest are taken first, each a twentieth of the study away from those before it and outside
    every finding that those show, so that they are not three neighbours in one lesion. Each of the
    others is as far as possible from all that are shown.

    Args:
        values: of each slice; NaN where a slice has next to nothing in it.
        findings: see :class:`multiad_med.visualize.findings.Finding`.
    """
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        known, values = np.arange(len(values)), np.zeros(len(values))
    gap = max(1, len(known) // _APART)
    highest: list[int] = []
    shown = np.zeros(len(values), bool)
    for index in known[np.argsort(-values[known], kind="stable")]:
        if len(highest) < _HIGHEST and not shown[index]:
            highest.append(int(index))
            shown[max(0, index - gap) : index + gap + 1] = True
            for finding in findings:
                if finding.first <= index <= finding.last:
                    shown[finding.first : finding.last + 1] = True
    chosen = list(highest)
    beyond = [known[0] - 1, known[-1] + 1]  # the ends show little
    for _ in range(min(_COLUMNS, len(known)) - len(chosen)):
        distances = np.abs(known[:, None] - np.array([*beyond, *chosen])).min(axis=1)
        chosen.append(int(known[distances.argmax()]))
    return sorted(chosen), set(highest)


def write_montage(study: ViewedStudy, path: Path) -> None:
    """Draw the chosen slices as radiologists see them; a triangle marks those with the highest map.

    B-scans are shown upright as stored. Slices are numbered as in the study's file.
    """
    values = study.slice_values()
    chosen, highest = choose_slices(values, find(study))
    across, along, _ = study.spacing
    box = body_box(study)
    columns = []
    for index in chosen:
        planes = [volume[(*box, index)] for volume in (study.image, study.anomaly_map)]
        if study.bscans:
            planes = [study.looked_at(plane) for plane in planes]
        value = "empty" if np.isnan(values[index]) else f"{values[index]:.3f}"
        mark = "\N{BLACK UP-POINTING TRIANGLE} " if index in highest else ""
        columns.append(
            MontageColumn(
                title=f"{mark}slice {study.source_slice(index)}: {value}",
                image=planes[0],
                anomaly_map=planes[1],
                spacing=(along, across) if study.bscans else (across, along),
                upright=study.bscans,
                limits=study.limits,
                threshold=study.threshold,
            )
        )
    save_montage(columns, path, title=f"{study.name}\n{decision(study.scores)}")
