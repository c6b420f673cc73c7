"""BraTS, LiTS and BTCV: volumes with labels and geometry as published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from multiad_med.testing.layouts.shapes import ellipsoid, save_nifti, texture, unit_grid

BRATS_AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Of every BraTS volume from 2018 on: stored left to right and back to front, 1 mm."""

BRATS_NAMES = {
    "2018": "Brats18_2013_{}_1",
    "2019": "BraTS19_CBICA_A{}_1",
    "2020": "BraTS20_Training_{:03d}",
    "2021": "BraTS2021_{:05d}",
    "2023": "BraTS-GLI-{:05d}-000",
}
_CONTRAST = {"t1": (600, -150), "t1ce": (600, 500), "t2": (500, 600), "flair": (450, 550)}
_NAMES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"}


def make_brats(
    folder: Path,
    *,
    rng: np.random.Generator,
    year: str = "2021",
    studies: int = 4,
    shape: tuple[int, int, int] = (48, 48, 24),
    sequences: Sequence[str] = ("t1", "t1ce", "t2", "flair"),
    seg: bool = True,
    suffix: str = ".nii.gz",
) -> None:
    """Write BraTS: one folder per study; tumour in the upper half of the slices, the others normal.

    Labels: 1 necrotic core, 2 oedema, 4 enhancing tumour (3 in 2023).

    Args:
        year: key of :data:`BRATS_NAMES`; 2018 and 2019 lie in ``HGG`` and ``LGG``.
        seg: whether there are masks; without them it is a validation release.
    """
    grid = unit_grid(shape)
    for index in range(studies):
        name = BRATS_NAMES[year].format(index)
        parent = folder / ("HGG", "LGG")[index % 2] if year in ("2018", "2019") else folder
        brain = ellipsoid(grid, (0, 0, 0), (0.8, 0.9, 0.9))
        centre = (rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), 0.45)
        label = np.zeros(shape, np.uint8)
        for value, scale in ((2, 1.0), (3 if year == "2023" else 4, 0.65), (1, 0.35)):
            label[ellipsoid(grid, centre, (0.35 * scale, 0.3 * scale, 0.35 * scale))] = value
        label[~brain] = 0
        tumour = ndimage.gaussian_filter((label > 0).astype(float), 0.5)
        volumes = {
            sequence: (brain * (base + 60 * texture(shape, rng) + gain * tumour))
            .clip(0)
            .astype(np.int16)
            for sequence, (base, gain) in _CONTRAST.items()
            if sequence in sequences
        }
        if seg:
            volumes["seg"] = label
        for sequence, volume in volumes.items():
            file = f"{name}-{_NAMES_2023[sequence]}" if year == "2023" else f"{name}_{sequence}"
            save_nifti(parent / name / f"{file}{suffix}", volume, BRATS_AFFINE)


def abdomen(
    shape: tuple[int, int, int], rng: np.random.Generator, *, lesion: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a CT in HU, its liver, and the lesions in the upper half of the liver's slices."""
    grid = unit_grid(shape)
    ct = np.full(shape, -1000.0)
    ct[ellipsoid(grid, (0, 0, 0), (0.9, 0.7, 3.0))] = 40
    ct[ellipsoid(grid, (0, -0.5, 0), (0.12, 0.12, 3.0))] = 500
    liver = ellipsoid(grid, (0.35, 0.1, 0), (0.4, 0.45, 0.8))
    ct[liver] = 105
    lesions = np.zeros(shape, bool)
    if lesion:
        centre = (0.35 + rng.uniform(-0.1, 0.1), 0.1 + rng.uniform(-0.1, 0.1), 0.35)
        lesions = ellipsoid(grid, centre, (0.14, 0.16, 0.3)) & liver
        ct[lesions] = 35
    return ct + 12 * texture(shape, rng), liver, lesions


def ct_affine(shape: tuple[int, int, int]) -> np.ndarray:
    """Return the affine of a field of view of 410 mm, whatever the size, and slices of 5 mm."""
    return np.diag([410 / shape[0], 410 / shape[1], 5.0, 1.0])


def make_lits(
    folder: Path,
    *,
    rng: np.random.Generator,
    volumes: int = 4,
    healthy: int = 1,
    tests: int = 0,
    shape: tuple[int, int, int] = (64, 64, 16),
    suffix: str = ".nii",
) -> None:
    """Write LiTS: ``Training Batch 1`` and ``2``, liver 1, lesion 2; the first ``healthy`` have none."""
    for index in range(volumes):
        ct, liver, lesions = abdomen(shape, rng, lesion=index >= healthy)
        batch = folder / f"Training Batch {1 if index < (volumes + 1) // 2 else 2}"
        seg = liver.astype(np.uint8) + lesions
        affine = ct_affine(shape)
        save_nifti(batch / f"volume-{index}{suffix}", ct.astype(np.int16), affine)
        save_nifti(batch / f"segmentation-{index}{suffix}", seg, affine)
    for index in range(tests):
        ct, _, _ = abdomen(shape, rng, lesion=True)
        path = folder / "LITS-Challenge-Test-Data" / f"test-volume-{index}{suffix}"
        save_nifti(path, ct.astype(np.int16), ct_affine(shape))


_BTCV_NAMES = {
    "img": ("Training/img/img{:04d}", "Training/label/label{:04d}"),
    "averaged": (
        "averaged-training-images/DET0000{:03d}_avg",
        "averaged-training-labels/DET0000{:03d}_avg_seg",
    ),
    "decathlon": ("imagesTr/img{:04d}", "labelsTr/label{:04d}"),
    "nnunet": ("imagesTr/ABD_{:03d}_0000", "labelsTr/ABD_{:03d}"),
}


def make_btcv(
    folder: Path,
    *,
    rng: np.random.Generator,
    volumes: int = 3,
    tests: int = 0,
    shape: tuple[int, int, int] = (64, 64, 16),
    naming: str = "img",
) -> None:
    """Write BTCV: organs 1 spleen, 6 liver, 8 aorta; no lesions.

    Args:
        naming: "img" (Synapse raw data), "averaged", "decathlon" or "nnunet".
    """
    image, label = _BTCV_NAMES[naming]
    for index in range(1, volumes + 1):
        ct, liver, _ = abdomen(shape, rng, lesion=False)
        organs = (6 * liver).astype(np.uint8)
        organs[ellipsoid(unit_grid(shape), (-0.5, 0.0, 0), (0.15, 0.2, 0.4))] = 1
        organs[ellipsoid(unit_grid(shape), (0, -0.25, 0), (0.06, 0.06, 3.0))] = 8
        affine = ct_affine(shape)
        save_nifti(folder / f"{image.format(index)}.nii.gz", ct.astype(np.int16), affine)
        save_nifti(folder / f"{label.format(index)}.nii.gz", organs, affine)
    for index in range(61, 61 + tests):
        ct, _, _ = abdomen(shape, rng, lesion=False)
        path = folder / f"Testing/img/img{index:04d}.nii.gz"
        save_nifti(path, ct.astype(np.int16), ct_affine(shape))


def make_liver(
    folder: Path,
    *,
    rng: np.random.Generator,
    btcv: int = 3,
    lits: int = 4,
    shape: tuple[int, int, int] = (64, 64, 16),
) -> None:
    """Write ``BTCV`` and ``LiTS`` side by side."""
    make_btcv(folder / "BTCV", rng=rng, volumes=btcv, shape=shape)
    make_lits(folder / "LiTS", rng=rng, volumes=lits, shape=shape)
