"""Checks at the entry, foreground and intensities."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from multiad_med.testing.brains import head, write_nifti
from multiad_med.transforms import (
    CheckMaskGridd,
    CheckVolume,
    ForegroundByIntensity,
    ForegroundByIntensityd,
    ScaleForegroundIntensity,
    VolumeError,
    occupied_slices,
)


def _nan(volume: np.ndarray) -> np.ndarray:
    volume = volume.astype(np.float32)
    volume[0, 0, :2] = np.nan
    volume[1, 1, 1] = np.inf
    return volume


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: np.stack([v] * 5, axis=-1), r"one channel, got 5\b"),
        (_nan, "3 voxels.*infinite"),
        (lambda v: np.full_like(v, 7), r"every voxel\b.*\b7\b"),
    ],
)
def test_unusable_volumes_are_refused_with_file_and_reason(
    tmp_path: Path, make, message: str
) -> None:
    path = write_nifti(tmp_path / "bad.nii.gz", make(head(np.random.default_rng(0))))
    image = LoadImaged("image", ensure_channel_first=True, image_only=True)({"image": str(path)})
    with pytest.raises(VolumeError, match=message) as error:
        CheckVolume()(image["image"])
    assert str(path) in str(error.value)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 4, 4, 0)])
def test_flat_and_empty_tensors_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(VolumeError):
        CheckVolume()(torch.zeros(shape))


def test_single_slice_passes() -> None:
    volume = torch.rand(1, 8, 8, 1)
    assert CheckVolume()(volume) is volume


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((8, 8, 5), np.eye(4), r"\(8, 8, 5\).*\(8, 8, 4\)"),
        ((8, 8, 4), np.diag([1, 1, 1.01, 1]), r"affine\b.*\b0\.0(1|09)"),
    ],
)
def test_mask_on_another_grid_is_refused(
    tmp_path: Path, shape: tuple[int, ...], affine: np.ndarray, message: str
) -> None:
    item = {
        "image": str(write_nifti(tmp_path / "i.nii", np.zeros((8, 8, 4), np.int16))),
        "label": str(write_nifti(tmp_path / "l.nii", np.zeros(shape, np.uint8), affine)),
    }
    data = LoadImaged(["image", "label"], ensure_channel_first=True, image_only=True)(item)
    with pytest.raises(VolumeError, match=message):
        CheckMaskGridd("label")(data)
    assert "label" not in CheckMaskGridd("label")({"image": data["image"]})


@pytest.mark.parametrize(
    ("fill", "anomalous", "message"),
    [
        (0, True, "mask of an anomalous image.*nothing"),
        (0, False, ""),
        (2, True, "mask.*every voxel"),
        (2, False, "mask.*every voxel"),
    ],
)
def test_an_empty_or_full_mask_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fill: int, anomalous: bool, message: str
) -> None:
    image = MetaTensor(torch.zeros(1, 4, 4, 4))
    mask = MetaTensor(torch.full((1, 4, 4, 4), fill), meta={"filename_or_obj": "m.nii"})
    data = {"image": image, "label": mask, "organ": mask, "anomalous": anomalous}
    CheckMaskGridd(["label", "organ"])(data)
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == bool(message)
    assert not message or re.search(rf"^m\.nii: .*{message}", told[0])


@pytest.mark.parametrize("background", [0.0, -3.5, 20.0])
def test_foreground_is_the_head_whatever_the_background(background: float) -> None:
    volume = torch.from_numpy(head(np.random.default_rng(0))).float()[None] / 500
    inside = volume > 0
    mask = ForegroundByIntensity()(volume + background)
    assert torch.equal(mask > 0, inside)


def test_dark_tissue_inside_the_head_belongs_to_it() -> None:
    volume = torch.from_numpy(head(np.random.default_rng(0))).float()[None]
    hollow = volume.clone()
    hollow[0, 15:25, 20:28, 3:7] = 0
    assert torch.equal(ForegroundByIntensity()(hollow), ForegroundByIntensity()(volume))


def test_noisy_air_is_not_foreground() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.from_numpy(head(np.random.default_rng(0))).float()[None]
    noisy = volume + 10 * torch.rand(volume.shape, generator=generator)
    mask = ForegroundByIntensity()(noisy) > 0
    assert int((mask != (volume > 0)).sum()) == 0


def test_single_bright_voxel_is_foreground() -> None:
    volume = torch.zeros(1, 10, 10, 4)
    volume[0, 3, 4, 2] = 5
    mask = ForegroundByIntensity()(volume)
    assert mask.sum() == 1
    assert mask[0, 3, 4, 2] == 1


def test_dictionary_form_takes_one_key() -> None:
    with pytest.raises(ValueError, match="one key"):
        ForegroundByIntensityd(["a", "b"])


def test_intensities_map_background_to_0_and_the_median_to_the_target() -> None:
    volume = torch.full((1, 10, 10, 10), -3.0)
    inside = torch.zeros_like(volume)
    inside[:, 2:8, 2:8, 2:8] = 1
    volume[inside > 0] = torch.linspace(-1, 3, 216)
    scaled = ScaleForegroundIntensity(quantile=0.5, target=0.4)(volume, inside)
    assert scaled[inside == 0].unique().tolist() == [0]
    median = float(volume[inside > 0].sort().values[107])
    # The scale is linear: (v + 3) * 0.4 / (median + 3).
    expected = ((volume[inside > 0] + 3) * 0.4 / (median + 3)).clamp(max=1)
    assert torch.allclose(scaled[inside > 0], expected, atol=1e-6)


def test_a_lesion_hardly_moves_the_scale() -> None:
    volume = torch.from_numpy(head(np.random.default_rng(0))).float()[None]
    mask = ForegroundByIntensity()(volume)
    lesion = volume.clone()
    lesion[0, 18:22, 22:26, 4:6] = 5000
    healthy = torch.ones_like(volume, dtype=torch.bool)
    healthy[0, 18:22, 22:26, 4:6] = False
    scale = ScaleForegroundIntensity()
    difference = (scale(lesion, mask) - scale(volume, mask))[healthy].abs().max()
    assert float(difference) < 0.01


@pytest.mark.parametrize(("quantile", "target"), [(0, 0.5), (1.1, 0.5), (0.5, 0), (0.5, 2)])
def test_impossible_scales_are_refused(quantile: float, target: float) -> None:
    with pytest.raises(ValueError, match=r"lie in \(0, 1\]"):
        ScaleForegroundIntensity(quantile=quantile, target=target)


def test_occupied_slices_by_hand() -> None:
    mask = torch.zeros(1, 10, 10, 5)
    for index, area in enumerate([0, 4, 40, 100, 9]):
        mask[0, :, :, index].view(-1)[:area] = 1
    assert occupied_slices(mask, min_fraction=0.1).tolist() == [False, False, True, True, False]
    assert occupied_slices(mask, min_fraction=0).tolist() == [False, True, True, True, True]
    assert not occupied_slices(torch.zeros(1, 4, 4, 3)).any()


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_occupied_slices_follow_a_flip_and_count_any_channel(seed: int, fraction: float) -> None:
    volume = (torch.rand(2, 4, 4, 6, generator=torch.Generator().manual_seed(seed)) - 0.7).clamp(0)
    forward = occupied_slices(volume, min_fraction=fraction)
    assert torch.equal(occupied_slices(volume.flip(-1), min_fraction=fraction).flip(0), forward)
    merged = volume.amax(dim=0, keepdim=True)
    assert torch.equal(occupied_slices(merged, min_fraction=fraction), forward)


def test_a_ct_is_refused_where_mr_is_taken() -> None:
    ct = torch.full((1, 4, 4, 2), -1000.0)
    ct[..., 0] = 40.0
    with pytest.raises(VolumeError, match=r"values down to -1000, as of a CT in HU"):
        CheckVolume(refuse_ct=True)(ct)
    normalised = ct / 200  # as z-scores of MR, which are negative too
    assert CheckVolume(refuse_ct=True)(normalised) is normalised
    assert CheckVolume()(ct) is ct
