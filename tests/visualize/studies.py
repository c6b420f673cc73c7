"""Studies with one bright voxel in the image and the map, stored in many ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multiad_med.data import file_sha256
from multiad_med.testing.brains import write_nifti

SHAPE = (24, 28, 12)
SPACING = (2.0, 2.0, 4.0)
MARK = (5, 19, 8)
"""A cube of 3 x 3 x 1 voxels around this one, in RAS+ order: left, anterior, above the middle."""

STORED = {
    "RAS": ("RAS", 0.0),
    "mirrored (LPS)": ("LPS", 0.0),
    "permuted (sagittal, ASL)": ("ASL", 0.0),
    "permuted (coronal, RSA)": ("RSA", 0.0),
    "oblique": ("RAS", 20.0),
    "oblique and permuted": ("PIR", 15.0),
}
"""Names of ways to store, with the axes' codes and a rotation in degrees."""


def volumes() -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Image and map in RAS+ order."""
    image = np.full(SHAPE, 100, np.int16)
    image[0, 0, 0] = 0
    heat = np.full(SHAPE, 0.1, np.float32)
    i, j, k = MARK
    heat[i - 1 : i + 2, j - 1 : j + 2, k] = 0.6
    heat[MARK] = 0.7
    return image, heat


def affine(degrees: float = 0.0) -> NDArray[np.float64]:
    """Of a volume in RAS+ order, turned about an oblique axis through its centre."""
    angle = np.deg2rad(degrees)
    about_x = np.eye(3)
    about_x[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    about_z = np.eye(3)
    half = angle / 2
    about_z[:2, :2] = [[np.cos(half), -np.sin(half)], [np.sin(half), np.cos(half)]]
    result = np.eye(4)
    result[:3, :3] = about_x @ about_z @ np.diag(SPACING)
    result[:3, 3] = [11.0, -7.0, 30.0]
    return result


def write_study(
    folder: Path, codes: str = "RAS", degrees: float = 0.0, *, scores: bool = True
) -> tuple[Path, Path, tuple[int, ...]]:
    """A study, its map and its scores.

    Returns:
        The paths of study and map, and the marked voxel in the files.
    """
    image, heat = volumes()
    matrix = affine(degrees)
    axes = [next("RAS".index(a) for a in pair if a in "RAS") for pair in map(_pair, codes)]
    flips = [code not in "RAS" for code in codes]
    stored = [np.transpose(a, axes) for a in (image, heat)]
    stored = [
        a[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)] for a in stored
    ]
    to_ras = np.zeros((4, 4))
    to_ras[3, 3] = 1
    mark = []
    for axis, (ras, flip) in enumerate(zip(axes, flips, strict=True)):
        to_ras[ras, axis] = -1 if flip else 1
        to_ras[ras, 3] = SHAPE[ras] - 1 if flip else 0
        mark.append(SHAPE[ras] - 1 - MARK[ras] if flip else MARK[ras])
    study = write_nifti(folder / "study.nii.gz", stored[0], matrix @ to_ras)
    anomaly_map = write_nifti(folder / "study_anomaly_map.nii.gz", stored[1], matrix @ to_ras)
    if scores:
        write_scores(folder / "study_anomaly.json", study, axis=axes.index(2), mark=mark)
    return study, anomaly_map, tuple(mark)


def _pair(code: str) -> str:
    return {"L": "LR", "R": "RL", "P": "PA", "A": "AP", "I": "IS", "S": "SI"}[code]


def write_scores(path: Path, study: Path, *, axis: int, mark: list[int]) -> None:
    """Scores 0.3 in every slice but the marked one, 0.8; the file's first and last are empty."""
    entries = [
        {"slice": k, "score": 0.8 if k == mark[axis] else 0.3, "flagged": k == mark[axis]}
        for k in range(1, SHAPE[2] - 1)
    ]
    content = {
        "image": str(study),
        "image_sha256": file_sha256(study),
        "volume_score": 0.8,
        "volume_p_value": 0.04,
        "volume_flagged": True,
        "verdict": "anomalous",
        "axis": axis,
        "slices": entries,
        "not_scored_slices": [0, SHAPE[2] - 1],
        "thresholds": {"map": 0.5, "slice_score": 0.55, "volume_score": 0.7},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
