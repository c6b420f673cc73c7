"""BMAD's liver slices against a slow loop over pixels, written from the description."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiad_med.transforms import BmadLiver, BmadLiverd


def literal(
    ct: np.ndarray, liver: np.ndarray, window: tuple[float, float] | None = None
) -> np.ndarray:
    """One slice, step by step."""
    rows, columns = ct.shape
    values = [[float(v) for v in row] for row in ct]
    if window is not None:
        values = [[min(max(v, window[0]), window[1]) for v in row] for row in values]
    low = min(min(row) for row in values)
    high = max(max(row) for row in values)
    grey = [[0] * columns for _ in range(rows)]
    for x in range(rows):
        for y in range(columns):
            if liver[x, y] > 0 and high > low:
                # 256 levels of equal width; the highest value falls into the last.
                level = min(int((values[x][y] - low) / (high - low) * 256), 255)
                grey[rows - 1 - x][y] = level
    counts = [0] * 256
    for row in grey:
        for level in row:
            counts[level] += level > 0  # black does not count
    total = sum(counts)
    if total == 0:
        return np.zeros((rows, columns), np.float32)
    table, share = [], 0.0
    for level in range(256):
        share += counts[level] / total
        equal = math.floor(255 * share)
        table.append(math.floor(equal / 150 * 120 + 30) if 0 < equal < 150 else equal)
    return np.array([[table[level] for level in row] for row in grey], np.float32) / np.float32(255)


def liver_ct(seed: int = 0, shape: tuple[int, int, int] = (12, 9, 4)) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(seed)
    ct = rng.integers(-1000, 900, shape).astype(np.int16)
    liver = np.zeros(shape, np.uint8)
    liver[2:9, 1:7, 1:3] = 1
    ct[liver > 0] = rng.integers(20, 140, int(liver.sum()))
    return torch.from_numpy(ct)[None], torch.from_numpy(liver)[None]


@pytest.mark.parametrize("window", [None, (-200.0, 250.0), (0.0, 100.0)])
@pytest.mark.parametrize("seed", range(3))
def test_slices_equal_the_loop(seed: int, window: tuple[float, float] | None) -> None:
    ct, liver = liver_ct(seed)
    result = BmadLiver(window=window)(ct, liver)
    assert result.shape == ct.shape
    assert result.dtype == torch.float32
    for z in range(ct.shape[-1]):
        expected = literal(ct[0, ..., z].numpy(), liver[0, ..., z].numpy(), window)
        np.testing.assert_allclose(result[0, ..., z], expected, atol=1e-7)
    assert result[..., 1:3].max() > 0.5  # the livers show something


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), clipped=st.booleans())
def test_any_slice_equals_the_loop(seed: int, clipped: bool) -> None:
    rng = np.random.default_rng(seed)
    ct = rng.normal(0, 300, (6, 5, 1)).astype(np.float32)
    liver = (rng.random((6, 5, 1)) < 0.5).astype(np.uint8)
    window = (-200.0, 250.0) if clipped else None
    result = BmadLiver(window=window)(torch.from_numpy(ct)[None], torch.from_numpy(liver)[None])
    expected = literal(ct[..., 0], liver[..., 0], window)
    np.testing.assert_allclose(result[0, ..., 0], expected, atol=1e-7)


def test_a_slice_by_hand() -> None:
    # Stretched over 8 bits: 0, 64, 128, 255. Each liver pixel but black is a third: 85, 170, 255;
    # 85 lies below 150 and becomes 85 / 150 * 120 + 30 = 98. Flipped along x.
    ct = torch.tensor([0.0, 1, 2, 4]).reshape(1, 4, 1, 1)
    result = BmadLiver()(ct, torch.ones_like(ct))
    np.testing.assert_allclose(result.flatten() * 255, [255, 170, 98, 0], atol=1e-4)
    # The window [1, 2] makes 0 and 1 black, 2 and 4 white.
    result = BmadLiver(window=(1, 2))(ct, torch.ones_like(ct))
    np.testing.assert_allclose(result.flatten() * 255, [255, 255, 0, 0], atol=1e-4)


@pytest.mark.parametrize("value", [-1000, 0, 60])
def test_constant_slices_and_slices_without_liver_are_black(value: int) -> None:
    ct = torch.full((1, 6, 6, 2), value, dtype=torch.int16)
    assert BmadLiver()(ct, torch.ones_like(ct)).abs().sum() == 0
    varied, _ = liver_ct()
    assert BmadLiver()(varied, torch.zeros_like(varied)).abs().sum() == 0


def test_only_training_is_left_unclipped_and_masks_are_flipped_too() -> None:
    ct, liver = liver_ct()
    lesion = torch.zeros_like(liver)
    lesion[0, 3, 4, 1] = 1
    item: dict[Hashable, Any] = {"image": ct, "foreground": liver, "label": lesion}
    plain, window = BmadLiver()(ct, liver), BmadLiver(window=(-200, 250))(ct, liver)
    assert not torch.equal(plain, window)
    prepare = BmadLiverd("image")
    assert torch.equal(prepare({**item, "split": "training"})["image"], plain)
    for split in ("validation", "test"):
        assert torch.equal(prepare({**item, "split": split})["image"], window)
    result = prepare(item)
    assert torch.equal(result["foreground"], liver.flip(1))
    assert result["label"].nonzero().tolist() == [[0, 12 - 1 - 3, 4, 1]]
    assert bool((result["image"][result["foreground"] == 0] == 0).all())
    other = BmadLiverd("image", window=(0, 100))(item)
    assert torch.equal(other["image"], BmadLiver(window=(0, 100))(ct, liver))


def test_a_study_without_lesion_mask_is_prepared_too() -> None:
    ct, liver = liver_ct()
    assert set(BmadLiverd("image")({"image": ct, "foreground": liver})) == {"image", "foreground"}
