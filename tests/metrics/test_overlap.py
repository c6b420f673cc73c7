"""Dice and Hausdorff distance against numbers by hand and a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice
from scipy.ndimage import binary_erosion

from multiad_med.metrics import Ranking, dice, hausdorff95


def _point(*where: int) -> torch.Tensor:
    mask = torch.zeros(12, 12, 12)
    mask[where] = 1
    return mask


def test_dice_by_hand_and_with_empty_masks() -> None:
    prediction = torch.tensor([[1, 1, 0], [0, 1, 0]])
    truth = torch.tensor([[1, 0, 0], [0, 1, 1]])
    empty = torch.zeros(2, 3)
    assert dice(prediction, truth) == pytest.approx(2 * 2 / 6)
    assert dice(7 * prediction, truth > 0) == dice(prediction, truth)
    assert dice(prediction, empty) == dice(empty, truth) == 0
    assert math.isnan(dice(empty, empty))


@given(st.integers(0, 10**6))
def test_dice_equals_monai_where_both_are_defined(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(2, 5, 4, 3, generator=generator) < 0.3).float()
    expected = float(compute_dice(a[None, None], b[None, None], ignore_empty=False))
    if a.any() or b.any():
        assert dice(a, b) == pytest.approx(expected)


def test_dice_counts_in_large_volumes_are_exact() -> None:
    everything = torch.ones(300, 300, 300, dtype=torch.uint8)
    one_less = everything.clone()
    one_less[0, 0, 0] = 0
    assert dice(everything, one_less) == 2 * (27_000_000 - 1) / (2 * 27_000_000 - 1)


def test_largest_f1_of_voxels_is_the_best_dice() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(6, 6, 6, generator=generator)
    truth = torch.rand(6, 6, 6, generator=generator) < 0.2
    best = max(dice(scores >= t, truth) for t in scores.unique())
    assert Ranking(scores, truth).f1_max == pytest.approx(best)


@pytest.mark.parametrize(("axis", "mm"), [(0, 0.5), (1, 2.0), (2, 5.0)])
def test_hausdorff_is_in_mm_along_each_axis(axis: int, mm: float) -> None:
    moved = [4, 4, 4]
    moved[axis] += 3
    distance = hausdorff95(_point(4, 4, 4), _point(*moved), spacing=(0.5, 2.0, 5.0))
    assert distance == pytest.approx(3 * mm)


def test_hausdorff_at_the_border_of_the_image_and_in_2d() -> None:
    assert hausdorff95(_point(0, 0, 0), _point(11, 0, 0), spacing=(2, 1, 1)) == pytest.approx(22)
    first, second = torch.zeros(2, 6, 6)
    first[0, 0] = second[3, 2] = 1
    assert hausdorff95(first, second, spacing=(1, 2)) == pytest.approx(5)


def test_hausdorff_is_symmetric_and_robust_to_a_few_outliers() -> None:
    truth = torch.zeros(40, 40)
    truth[5:35, 5:35] = 1
    prediction = truth.clone()
    prediction[5, 39] = 1
    for a, b in ((prediction, truth), (truth, prediction)):
        assert hausdorff95(a, b, spacing=(1, 1)) == pytest.approx(0)
    hole = torch.zeros(40, 40)
    hole[5:35, 5:20] = 1
    forth = hausdorff95(hole, truth, spacing=(1, 1))
    assert forth == hausdorff95(truth, hole, spacing=(1, 1)) == pytest.approx(15, abs=1)


def _slow_hausdorff95(a: np.ndarray, b: np.ndarray, spacing: np.ndarray) -> float:
    surfaces = [np.argwhere(m & ~binary_erosion(m)) * spacing for m in (a, b)]
    table = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    return max(np.quantile(table.min(axis), 0.95) for axis in (0, 1))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_hausdorff_equals_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 6, 7, 5)) < rng.uniform(0.05, 0.9)
    a[0, 0, 0] = b[5, 6, 4] = True
    spacing = rng.uniform(0.3, 5, 3)
    ours = hausdorff95(torch.from_numpy(a), torch.from_numpy(b), spacing=spacing)
    assert ours == pytest.approx(_slow_hausdorff95(a, b, spacing), rel=1e-5)


def test_hausdorff_of_an_empty_mask_is_nan() -> None:
    empty, point = torch.zeros(12, 12, 12), _point(1, 2, 3)
    for a, b in ((empty, point), (point, empty), (empty, empty)):
        assert math.isnan(hausdorff95(a, b, spacing=(1, 1, 1)))


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (torch.ones(3, 3), torch.ones(3, 4), "differ in shape"),
        (torch.full((3, 3), math.nan), torch.ones(3, 3), "9 labels are NaN"),
        (torch.ones(3, 3), torch.full((3, 3), math.nan), "9 labels are NaN"),
    ],
)
def test_wrong_masks_are_refused(prediction, truth, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dice(prediction, truth)
    with pytest.raises(ValueError, match=message):
        hausdorff95(prediction, truth, spacing=(1, 1))


@pytest.mark.parametrize(
    "spacing", [(1,), (1, 1, 1), (0, 1), (-1, 1), (math.nan, 1), (math.inf, 1)]
)
def test_wrong_spacings_are_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing must be 2 positive numbers of mm"):
        hausdorff95(torch.ones(3, 3), torch.ones(3, 3), spacing=spacing)


def test_hausdorff_needs_an_image() -> None:
    with pytest.raises(ValueError, match=r"must be \(H, W\) or \(X, Y, Z\)"):
        hausdorff95(torch.ones(1, 3, 3, 3), torch.ones(1, 3, 3, 3), spacing=(1, 1, 1, 1))
