"""Padding of any constant is background: the patient, and the scale, are those of no padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from multiad_med.readers import LoadVolume
from multiad_med.transforms import (
    ForegroundByHounsfield,
    ForegroundByIntensity,
    ScaleForegroundIntensity,
)

SIZE, DEPTH = 64, 20
X, Y = np.mgrid[:SIZE, :SIZE]
RADIUS = np.hypot(X - 32, Y - 32)
BRAIN = np.repeat((RADIUS < 16)[..., None], DEPTH, axis=-1)
WHERE = {
    "corners": np.repeat((RADIUS > 31)[..., None], DEPTH, axis=-1),
    "wedge": np.repeat((X + Y < 24)[..., None], DEPTH, axis=-1),
    "stripes": np.repeat((np.abs(X - 32) > 24)[..., None], DEPTH, axis=-1),
    "all around": ~BRAIN,
}
# Tissue is 150 to 650: below, at air, inside, above, and the ends of the type.
VALUES = [-32768, -2000, -300, -1, 0, 250, 400, 1024, 4095, 32767]


def head(seed: int = 0) -> np.ndarray:
    """A brain of mean 400 in air of 0 to 20."""
    rng = np.random.default_rng(seed)
    air = rng.integers(0, 20, BRAIN.shape)
    tissue = np.clip(400 + 80 * rng.standard_normal(BRAIN.shape), 150, 650)
    return np.where(BRAIN, tissue, air).astype(np.int16)


def tensor(volume: np.ndarray, dtype: type = np.int16) -> torch.Tensor:
    return torch.from_numpy(volume.astype(dtype))[None]


def dice(mask: torch.Tensor) -> float:
    found = mask[0].numpy() > 0
    return float(2 * (found & BRAIN).sum() / (found.sum() + BRAIN.sum()))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("where", WHERE)
def test_padding_of_any_value_is_background(where: str, value: int, dtype: type) -> None:
    padded = tensor(np.where(WHERE[where], value, head()), dtype)
    mask = ForegroundByIntensity()(padded)
    assert dice(mask) > 0.99
    assert not mask[0].numpy()[WHERE[where]].any()


@pytest.mark.slow
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("where", WHERE)
def test_scale_is_that_of_a_background_of_0(where: str, value: int) -> None:
    results = []
    for fill in (0, value):
        volume = tensor(np.where(WHERE[where], fill, head()))
        scaled = ScaleForegroundIntensity()(volume, torch.from_numpy(BRAIN)[None])
        results.append(scaled[0].numpy()[BRAIN])
    # Of tissue that borders on padding of its own value, a few voxels cannot be told from it.
    away = np.abs(results[1] - results[0]) > 0.01
    assert away.mean() < (0.02 if where == "all around" and 150 < value < 650 else 1e-9)


@pytest.mark.parametrize("value", [-2000.0, 0.0, 5.0])
def test_background_of_normalised_values_may_lie_anywhere(value: float) -> None:
    normal = (head() - 400.0) / 80.0  # tissue -3.1 to 3.1
    assert dice(ForegroundByIntensity()(tensor(np.where(BRAIN, normal, value), np.float32))) > 0.97


@pytest.mark.parametrize("value", [-2000, 400, 4095])
def test_slices_of_padding_alone_are_background(value: int) -> None:
    volume = head()
    volume[..., :4] = value
    mask = ForegroundByIntensity()(tensor(volume))[0].numpy() > 0
    np.testing.assert_array_equal(mask[..., 4:], BRAIN[..., 4:])
    assert not mask[..., :4].any()


def test_each_channel_has_padding_of_its_own() -> None:
    channels = [np.where(WHERE["corners"], v, head(s)) for s, v in enumerate((-2000, 4095, 0))]
    mask = ForegroundByIntensity()(torch.from_numpy(np.stack(channels).astype(np.int16)))
    assert dice(mask) > 0.99


def test_voxels_interpolated_between_padding_and_air_are_background() -> None:
    volume = head()
    edge = (RADIUS > 31) & (RADIUS < 31.4)
    volume[edge] = -1100
    volume[RADIUS >= 31.4] = -2000
    assert dice(ForegroundByIntensity()(tensor(volume))) > 0.99


def ct() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.where(BRAIN, 40, -1000) + rng.integers(-15, 15, BRAIN.shape)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("value", [-32768, -3024, -2000, -1024, 0, 45, 1000, 4095, 32767, 63536])
@pytest.mark.parametrize("where", ["corners", "wedge", "stripes"])
def test_body_of_a_ct_is_found_inside_any_padding(where: str, value: int, dtype: type) -> None:
    if value > np.iinfo(np.int16).max:
        dtype = np.float32
    volume = tensor(np.where(WHERE[where], value, ct()), dtype)
    np.testing.assert_array_equal(ForegroundByHounsfield()(volume)[0] > 0, BRAIN)


def test_saturated_tissue_away_from_the_corners_is_tissue() -> None:
    volume = head()
    volume[24:40, :20] = 650  # bright, constant, and cut by the field of view
    mask = ForegroundByIntensity()(tensor(volume))[0].numpy() > 0
    assert mask[24:40, :20].all()


@pytest.mark.slow
@pytest.mark.parametrize("value", [-2000, 60, 4095])
def test_a_real_brain_is_found_inside_padding(real_data: Path, value: int) -> None:
    path = sorted((real_data / "brain" / "ixi_t1_2mm").rglob("*.nii.gz"))[0]
    volume = LoadVolume()(path).to(torch.int16)
    plain = ForegroundByIntensity()(volume)
    x, y = torch.meshgrid(*(torch.arange(n) - n / 2 for n in volume.shape[1:3]), indexing="ij")
    padded = volume.clone()
    padded[0, torch.hypot(x, y) >= min(volume.shape[1:3]) / 2] = value
    found = ForegroundByIntensity()(padded)
    np.testing.assert_array_equal(found.numpy(), plain.numpy())
    np.testing.assert_array_equal(
        ScaleForegroundIntensity()(padded, found)[found > 0].numpy(),
        ScaleForegroundIntensity()(volume, plain)[plain > 0].numpy(),
    )
