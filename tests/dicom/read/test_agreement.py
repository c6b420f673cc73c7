"""Voxel order and affine in agreement with MONAI's readers and SimpleITK."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientationd

from multiad_med.dicom.read.reader import DicomSeriesReader
from tests.dicom_files import ct_slices, random_volume, save

pytestmark = pytest.mark.slow


def load(path: Path, reader: object) -> MetaTensor:
    return LoadImage(reader=reader, ensure_channel_first=True, image_only=True)(path)


def read_with_simpleitk(folder: Path) -> MetaTensor:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float32)
    return MetaTensor(array[None], affine=np.diag([-1, -1, 1, 1]) @ affine)


def all_readings(folder: Path) -> dict[str, MetaTensor]:
    images = {
        "ours": load(folder, DicomSeriesReader()),
        "pydicom": load(folder, "PydicomReader"),
        "itk": load(folder, "ITKReader"),
        "simpleitk": read_with_simpleitk(folder),
    }
    to_ras = Orientationd("image", axcodes="RAS", labels=None)
    return {name: to_ras({"image": image})["image"] for name, image in images.items()}


def assert_all_agree(folder: Path, at: Sequence[float] | None = None) -> None:
    """All readers give the same volume and affine in RAS; its brightest voxel lies at ``at``."""
    images = all_readings(folder)
    ours = images["ours"]
    for name, image in images.items():
        np.testing.assert_allclose(image.affine, ours.affine, atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(image.numpy(), ours.numpy(), err_msg=name)
    if at is not None:
        voxel = np.unravel_index(int(ours[0].argmax()), ours.shape[1:])
        np.testing.assert_allclose((ours.affine.numpy() @ [*voxel, 1])[:3], at, atol=1e-4)


def right_handed_cosines() -> list[tuple[float, ...]]:
    """All 24 row and column directions along the axes, either way."""
    axes = [tuple((sign * axis).tolist()) for axis in np.eye(3) for sign in (1.0, -1.0)]
    return [
        (*row, *column)
        for row, column in itertools.permutations(axes, 2)
        if np.dot(row, column) == 0
    ]


def oblique_cosines() -> list[tuple[float, ...]]:
    cosines = []
    for seed in range(3):
        q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
        cosines.append(tuple(q[:2].ravel().tolist()))
    return cosines


def assert_orientation_agrees(folder: Path, orientation: Sequence[float], descending: bool) -> None:
    volume = random_volume()
    volume[2, 1, 5] = 4095
    origin, step = np.array([-10.0, 20.0, 30.0]), 5.0
    slices = ct_slices(
        volume, orientation=orientation, origin=origin, spacing=(0.5, 0.5), step=step
    )
    if descending:
        slices.reverse()
        for number, dataset in enumerate(slices, start=1):
            dataset.InstanceNumber = number
    save(slices, folder, seed=1)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    marked = origin + 5 * 0.5 * row + 1 * 0.5 * column + 2 * step * np.cross(row, column)
    assert_all_agree(folder, at=marked * [-1, -1, 1])


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize(
    "orientation", right_handed_cosines(), ids=lambda cosines: " ".join(f"{x:.0f}" for x in cosines)
)
def test_readers_agree_in_every_orientation_along_the_axes(
    tmp_path: Path, orientation: tuple[float, ...], descending: bool
) -> None:
    assert_orientation_agrees(tmp_path, orientation, descending)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("orientation", oblique_cosines(), ids=["a", "b", "c"])
def test_readers_agree_in_oblique_orientations(
    tmp_path: Path, orientation: tuple[float, ...], descending: bool
) -> None:
    assert_orientation_agrees(tmp_path, orientation, descending)


def test_real_jpeg_2000_series_agrees_with_the_other_readers(real_data: Path) -> None:
    folder = real_data / "ct" / "example_ct_dicom"
    image = load(folder, DicomSeriesReader())
    assert image.shape == (1, 512, 512, 20)
    assert image.min() >= -1024
    assert_all_agree(folder)


def test_real_series_lies_on_the_grid_of_its_segmentation(real_data: Path) -> None:
    to_ras = Orientationd(["image", "label"], axcodes="RAS", labels=None)
    folder = real_data / "ct"
    label = load(folder / "example_seg_dicom.nii.gz", "NibabelReader")
    pair = to_ras({"image": load(folder / "example_ct_dicom", DicomSeriesReader()), "label": label})
    assert pair["image"].shape == pair["label"].shape
    np.testing.assert_allclose(pair["image"].affine, pair["label"].affine, atol=1e-4)
