"""A marked voxel through preparation: same world point in the store, whatever the file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.data import read_study
from multiad_med.data.store import STUDIES
from multiad_med.preparation import load_recipe, prepare
from tests.transforms.test_geometry import OBLIQUE, ORIENTATIONS, reoriented

ANISOTROPIC = np.diag([0.5, 0.5, 5.0, 1.0]) @ np.array(
    [[1, 0, 0, -20], [0, 1, 0, 33], [0, 0, 1, 4], [0, 0, 0, 1.0]]
)
MARK = (22, 13, 6)


def marked_head() -> np.ndarray:
    """A bright box in air, with one voxel much brighter."""
    volume = np.zeros((40, 32, 9), np.float32)
    volume[8:32, 6:26, 2:8] = 100
    volume[MARK] = 1000
    return volume


def store_peak(target: Path) -> np.ndarray:
    """The world point of the brightest stored pixel."""
    (path,) = (target / STUDIES).rglob("*.safetensors")
    study = read_study(path)
    image = study["image"][:, 0].astype(float)
    n, x, y = np.unravel_index(image.argmax(), image.shape)
    return np.asarray(study["about"]["affine"]) @ [x, y, study["slices"][n], 1]


def prepared(source: Path, target: Path, **settings: object) -> Path:
    # Four pixels per voxel's side: the peak is found to a quarter of a voxel.
    recipe = load_recipe("volumes", {"size": 160, **settings})
    prepare(recipe, source, target, workers=0, progress=False)
    return target


def assert_same_point(found: np.ndarray, affine: np.ndarray) -> None:
    """To less than half a voxel along each axis of the volume."""
    voxel = np.linalg.inv(affine) @ found
    np.testing.assert_allclose(voxel[:3], MARK, atol=0.5)


@pytest.mark.parametrize("affine", [OBLIQUE, ANISOTROPIC], ids=["oblique", "anisotropic"])
@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_marked_voxel_keeps_its_world_point(
    tmp_path: Path, axcodes: str, affine: np.ndarray
) -> None:
    image = reoriented(nib.Nifti1Image(marked_head(), affine), axcodes)
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in/v.nii.gz")
    assert_same_point(store_peak(prepared(tmp_path / "in", tmp_path / "out")), affine)


@pytest.mark.parametrize("forms", ["sform", "qform", "both", "disagreeing"])
def test_sform_counts_where_both_are_given(tmp_path: Path, forms: str) -> None:
    rotation = np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    affine = rotation @ ANISOTROPIC
    other = np.diag([-2.0, -2.0, 3.0, 1.0])
    image = nib.Nifti1Image(marked_head(), None)
    image.set_sform(affine, code=0 if forms == "qform" else 1)
    image.set_qform(
        other if forms == "disagreeing" else affine, code=0 if forms == "sform" else 1
    )
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in/v.nii")
    assert_same_point(store_peak(prepared(tmp_path / "in", tmp_path / "out")), affine)
