"""Geometry through the whole road: RAS in, the source's own grid out."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, Orientationd

from multiad_med.inference.axial_inferer import AxialInferer
from multiad_med.testing.brains import write_nifti
from multiad_med.transforms import FitInPlane, FitInPlaned

ORIENTATIONS = [
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in itertools.permutations(["RL", "AP", "SI"])
    for flips in itertools.product((0, 1), repeat=3)
]
OBLIQUE = np.array(
    [[2.8, -0.6, 0.4, -31.0], [0.7, 2.6, -0.5, 12.0], [-0.3, 0.5, 4.7, 40.0], [0, 0, 0, 1]]
)


def brightness(x: torch.Tensor) -> torch.Tensor:
    """A network whose anomaly is brightness."""
    return x.mean(dim=1, keepdim=True)


def road(path: Path, size: int = 64) -> MetaTensor:
    """Load, orient, fit, infer slice by slice, invert."""
    preprocessing = Compose(
        [
            LoadImaged("image", ensure_channel_first=True, image_only=True),
            Orientationd("image", axcodes="RAS", labels=None),
            FitInPlaned("image", size=size),
        ]
    )
    data = preprocessing({"image": str(path)})
    data["pred"] = AxialInferer(sw_batch_size=4)(data["image"][None], brightness)[0]
    post = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True)
    return post(data)["pred"]


def world(affine: np.ndarray, voxel: tuple[int, ...]) -> np.ndarray:
    return np.asarray(affine, dtype=float) @ [*voxel, 1]


def reoriented(image: nib.Nifti1Image, axcodes: str) -> nib.Nifti1Image:
    """The same volume stored along other axes."""
    start = nib.io_orientation(image.affine)
    return image.as_reoriented(
        nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(axcodes))
    )


def test_there_are_48_axis_permutations_and_flips() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.slow
@pytest.mark.parametrize(
    "affine", [np.diag([1.5, 1.5, 4.0, 1.0]), OBLIQUE], ids=["straight", "oblique"]
)
@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_bright_corner_voxel_stays_at_its_world_point(
    tmp_path: Path, axcodes: str, affine: np.ndarray
) -> None:
    volume = np.zeros((20, 28, 9), np.float32)
    volume[0, 27, 0] = 1000.0
    image = reoriented(nib.Nifti1Image(volume, affine), axcodes)
    path = write_nifti(tmp_path / "v.nii.gz", image.get_fdata().astype(np.float32), image.affine)
    result = road(path)
    stored = nib.load(path)
    assert result.shape == (1, *stored.shape)
    np.testing.assert_allclose(result.affine, stored.affine, atol=1e-4)
    peak = np.unravel_index(int(torch.as_tensor(result)[0].argmax()), stored.shape)
    np.testing.assert_allclose(world(result.affine, peak), world(affine, (0, 27, 0)), atol=1e-3)


@pytest.mark.parametrize("shape", [(20, 28, 1), (100, 7, 5), (7, 100, 5), (64, 64, 3)])
def test_smooth_volume_comes_back_as_it_went(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Linear interpolation reproduces a linear ramp away from the border."""
    ramp = sum(a for a in np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij"))
    path = write_nifti(tmp_path / "v.nii", (1 + ramp).astype(np.float32), np.diag([1, 1, 3, 1.0]))
    result = torch.as_tensor(road(path, size=128))[0].numpy()
    inner = tuple(slice(2, -2) if n > 5 else slice(None) for n in shape[:2])
    np.testing.assert_allclose(result[inner], (1 + ramp)[inner], atol=2e-2)


def test_aspect_is_kept_in_millimetres() -> None:
    # 40 x 1 mm by 20 x 4 mm: 40 mm by 80 mm, so that x fills half of what y fills.
    volume = MetaTensor(torch.ones(1, 40, 20, 3), affine=torch.diag(torch.tensor([1.0, 4, 2, 1])))
    fitted = FitInPlane(64)(volume)
    assert fitted.shape == (1, 64, 64, 3)
    filled = torch.as_tensor(fitted)[0, :, :, 1] > 0
    assert int(filled.any(dim=1).sum()) == 32
    assert int(filled.any(dim=0).sum()) == 64
    spacing = np.linalg.norm(np.asarray(fitted.affine)[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, [1.25, 1.25, 2])


def test_masks_stay_binary_under_nearest() -> None:
    mask = MetaTensor((torch.rand(1, 50, 40, 4) > 0.5).float())
    assert set(torch.as_tensor(FitInPlane(64, mode="nearest")(mask)).unique().tolist()) == {0, 1}


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 40), st.integers(2, 40), st.integers(1, 4)),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    size=st.sampled_from([16, 33, 64]),
)
def test_fit_then_inverse_restores_shape_and_affine(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], size: int
) -> None:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    volume = MetaTensor(torch.rand(1, *shape), affine=affine)
    fit = FitInPlane(size)
    fitted = fit(volume)
    assert fitted.shape == (1, size, size, shape[2])
    restored = fit.inverse(fitted)
    assert restored.shape == volume.shape
    np.testing.assert_allclose(restored.affine, affine, atol=1e-4)


def test_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive number of pixels, got 0"):
        FitInPlane(0)
