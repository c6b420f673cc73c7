"""Small brains with known geometry, and a cohort of them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

__all__ = ["head", "make_brains", "write_nifti"]


def write_nifti(
    path: Path, array: np.ndarray, affine: np.ndarray | None = None, units: str = "mm"
) -> Path:
    """Write an array as NIfTI."""
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units(units)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def head(rng: np.random.Generator, shape: tuple[int, int, int] = (40, 48, 10)) -> np.ndarray:
    """Return a bright textured ellipsoid in a black volume, int16."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(a**2 for a in axes) < 0.8
    texture = 500 + 100 * axes[0] + 30 * rng.standard_normal(shape)
    return (inside * texture).astype(np.int16)


def make_brains(parent: Path) -> Path:
    """Write six small subjects and a datalist: three training, one validation, two test (one lesion)."""
    rng = np.random.default_rng(0)
    folder = parent / "cohort"
    affine = np.diag([4.0, 4.0, 8.0, 1.0])
    splits: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    for index, split in enumerate(["training"] * 3 + ["validation"] + ["test"] * 2):
        volume, name = head(rng), f"s{index}"
        item = {"image": f"images/{name}.nii.gz", "subject": name}
        if split == "test":
            lesion = np.zeros(volume.shape, np.uint8)
            if index == 5:
                lesion[18:26, 20:28, 4:6] = 1
                volume[lesion > 0] = 1500
            write_nifti(folder / f"labels/{name}.nii.gz", lesion, affine)
            item["label"] = f"labels/{name}.nii.gz"
        write_nifti(folder / item["image"], volume, affine)
        splits[split].append(item)
    (folder / "datalist.json").write_text(json.dumps(splits))
    return folder
