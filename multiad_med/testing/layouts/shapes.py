"""Textures, ellipsoids and files from which the trees are built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage


def unit_grid(shape: Sequence[int]) -> list[np.ndarray]:
    return list(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))


def ellipsoid(
    grid: Sequence[np.ndarray], centre: Sequence[float], radii: Sequence[float]
) -> np.ndarray:
    squares = [((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)]
    return np.sum(squares, axis=0) < 1


def texture(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise of mean 0 and standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    return (noise - noise.mean()) / noise.std()


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def save_image(path: Path, array: np.ndarray) -> None:
    """Write an 8-bit image; the suffix names the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(array, 0, 255).astype(np.uint8)).save(path)


def picture(size: int, rng: np.random.Generator, *, defect: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a textured colour image of a disc, and the mask (0, 255) of its dark scratch."""
    grid = unit_grid((size, size))
    disc = ellipsoid(grid, (0, 0), (0.8, 0.8))
    grey = 60 + disc * (100 + 15 * texture((size, size), rng))
    mask = np.zeros((size, size), np.uint8)
    if defect:
        angle = rng.uniform(0, np.pi)
        along = grid[0] * np.cos(angle) + grid[1] * np.sin(angle)
        across = grid[1] * np.cos(angle) - grid[0] * np.sin(angle)
        scratch = (abs(along) < 0.5) & (abs(across) < 0.08)
        grey[scratch], mask[scratch] = 20, 255
    return np.stack([grey, 0.9 * grey, 0.8 * grey], axis=-1), mask
