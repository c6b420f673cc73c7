"""A marked voxel through preparation: same world point in the cache, whatever the file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, Invertd, Orientationd

from multiad_med.data import read_study
from multiad_med.data.slice_cache import STUDIES
from multiad_med.inference.axial_inferer import AxialInferer
from multiad_med.preparation import load_recipe, prepare
from multiad_med.readers import LoadVolumed
from multiad_med.transforms import FitInPlaned
from tests.dicom.read.test_agreement import right_handed_cosines
from tests.dicom_files import ct_slices, save
from tests.transforms.test_geometry import OBLIQUE, ORIENTATIONS, brightness, reoriented

pytestmark = pytest.mark.slow

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


def cache_peak(target: Path) -> np.ndarray:
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
    assert_same_point(cache_peak(prepared(tmp_path / "in", tmp_path / "out")), affine)


@pytest.mark.parametrize("forms", ["sform", "qform", "both", "disagreeing"])
def test_sform_counts_where_both_are_given(tmp_path: Path, forms: str) -> None:
    rotation = np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    affine = rotation @ ANISOTROPIC
    other = np.diag([-2.0, -2.0, 3.0, 1.0])
    image = nib.Nifti1Image(marked_head(), None)
    image.set_sform(affine, code=0 if forms == "qform" else 1)
    image.set_qform(other if forms == "disagreeing" else affine, code=0 if forms == "sform" else 1)
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in/v.nii")
    assert_same_point(cache_peak(prepared(tmp_path / "in", tmp_path / "out")), affine)


DICOM_OBLIQUE = (0.96, 0.28, 0.0, -0.28, 0.96, 0.0)


def series(folder: Path, cosines: tuple[float, ...], *, descending: bool) -> np.ndarray:
    """A CT series 0.5 x 0.5 x 5 mm with one bright voxel; returns that voxel's world point in RAS."""
    volume = np.full((9, 40, 32), 500, np.uint16)
    volume[2:7, 6:34, 5:27] = 1100
    slice_, row, column = 5, 21, 13
    volume[slice_, row, column] = 4000
    slices = ct_slices(volume, orientation=cosines, spacing=(0.5, 0.5), step=5.0)
    first = slices[slice_]
    across, down = np.array(cosines[:3]), np.array(cosines[3:])
    place = np.array(first.ImagePositionPatient, float) + 0.5 * (column * across + row * down)
    save(slices[::-1] if descending else slices, folder)
    return place * [-1, -1, 1]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("cosines", [*right_handed_cosines(), DICOM_OBLIQUE])
def test_marked_voxel_of_a_dicom_series_keeps_its_world_point(
    tmp_path: Path, cosines: tuple[float, ...], descending: bool
) -> None:
    place = series(tmp_path / "in", cosines, descending=descending)
    found = cache_peak(
        prepared(tmp_path / "in", tmp_path / "out", kind="ct", windows=[-1000, 4000])
    )
    # To half a voxel, which is half a pixel in-plane and half a slice across.
    distance = np.abs(found[:3] - place)
    assert np.linalg.norm(distance) < np.linalg.norm([0.25, 0.25, 2.5])
    preprocessing = Compose(
        [
            LoadVolumed("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            FitInPlaned("image", size=160),
        ]
    )
    data = preprocessing({"image": str(tmp_path / "in")})
    data["pred"] = AxialInferer(sw_batch_size=4)(data["image"][None] + 1100, brightness)[0]
    invert = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True)
    result = invert(data)["pred"]
    source = LoadVolumed("image")({"image": str(tmp_path / "in")})["image"]
    assert result.shape == source.shape
    np.testing.assert_allclose(result.affine, source.affine, atol=1e-4)
    peak = np.unravel_index(int(result[0].argmax()), result.shape[1:])
    np.testing.assert_allclose((np.asarray(result.affine) @ [*peak, 1])[:3], place, atol=1e-3)
