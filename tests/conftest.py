"""Shared fixtures: small volumes with known geometry, small networks, real data where present."""

from __future__ import annotations

import json
import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the processors
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multiad_med.networks import ImageStudent, MultiAD

REAL_DATA = Path(os.environ.get("MULTIAD_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def real_data() -> Path:
    """Folder of real images, skipped where it is absent (set MULTIAD_DATA to its path)."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"real data not found at {REAL_DATA}; set MULTIAD_DATA to their folder")
    return REAL_DATA


class TinyFeatures(nn.Module):
    """Four stages of one convolution each: a feature extractor that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (4, 6, 8, 10)
        self.strides = (4, 8, 16, 32)
        self.stem = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1)
            for a, b in zip(self.channels, self.channels[1:], strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [torch.tanh(self.norm(self.stem(x)))]
        for stage in self.stages:
            features.append(torch.tanh(stage(features[-1])))
        return features


def tiny_multiad(**kwargs: object) -> MultiAD:
    """A Multi-AD of tiny extractors."""
    return MultiAD(TinyFeatures(), ImageStudent(TinyFeatures()), **kwargs)


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
    """A bright textured ellipsoid in a black volume, int16."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(a**2 for a in axes) < 0.8
    texture = 500 + 100 * axes[0] + 30 * rng.standard_normal(shape)
    return (inside * texture).astype(np.int16)


def make_small_cohort(parent: Path) -> Path:
    """Six small subjects with a datalist: three training, one validation, two test, one with lesion."""
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


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """The folder of :func:`make_small_cohort`."""
    return make_small_cohort(tmp_path)
