"""From features to one map: Eq. 13-15 by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from multiad_med.networks import (
    FusionMode,
    GaussianSmoothing,
    MultiScaleFusion,
    cosine_distance_maps,
)


def test_cosine_distance_equals_a_slow_loop() -> None:
    torch.manual_seed(0)
    teacher, student = [torch.randn(2, 5, 3, 4)], [torch.randn(2, 5, 3, 4)]
    (distance,) = cosine_distance_maps(teacher, student)
    assert distance.shape == (2, 1, 3, 4)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                t, s = teacher[0][b, :, i, j], student[0][b, :, i, j]
                expected = 1 - float(t @ s) / math.sqrt(float(t @ t) * float(s @ s))
                assert float(distance[b, 0, i, j]) == pytest.approx(expected, abs=1e-6)


def test_cosine_distance_is_0_for_equal_1_for_orthogonal_2_for_opposite_features() -> None:
    teacher = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    students = [torch.tensor(v).view(1, 2, 1, 1) for v in ([3.0, 0.0], [0.0, 1.0], [-2.0, 0.0])]
    distances = [cosine_distance_maps([teacher], [s])[0].item() for s in students]
    assert distances == pytest.approx([0, 1, 2], abs=1e-6)


def test_smoothing_equals_scipy_away_from_and_at_the_border() -> None:
    x = torch.zeros(1, 1, 64, 48)
    x[0, 0, 30, 20] = x[0, 0, 2, 47] = 1.0
    ours = GaussianSmoothing(4.0)(x, [64, 48])[0, 0]
    theirs = gaussian_filter(x[0, 0].numpy(), 4.0, truncate=4.0, mode="nearest")
    assert float((ours - torch.from_numpy(theirs)).abs().max()) < 2e-5
    assert torch.equal(GaussianSmoothing(0)(x, [64, 48]), x)


def test_smoothing_keeps_a_constant() -> None:
    x = torch.full((1, 1, 8, 8), 3.0)
    assert torch.allclose(GaussianSmoothing(4.0)(x, [8, 8]), x)


def _maps(*values: float) -> list[Tensor]:
    return [
        torch.full((1, 1, size, size), value) for size, value in zip((8, 4), values, strict=True)
    ]


def _normal(mode: FusionMode) -> list[torch.Tensor]:
    """Distances of mean 0.2 and 0.4, deviation 0.1 and 0.3; or of such quantiles."""
    if mode is FusionMode.QUANTILE:  # 1,000 values: the 900th and the 995th
        values = torch.cat([torch.zeros(994), torch.ones(6)])
    else:  # of two values the deviation is their distance by the root of two
        values = torch.tensor([-1.0, 1.0]) / math.sqrt(2)
    return [0.2 + 0.1 * values, 0.4 + 0.3 * values]


@pytest.mark.parametrize(
    ("mode", "expected"),
    # Level 1: (0.5 - 0.2) / 0.1 = 3; level 2: (0.1 - 0.4) / 0.3 = -1, which ReLU makes 0.
    [
        (FusionMode.ZSCORE, 3.0),
        (FusionMode.QUANTILE, 3.0),
        (FusionMode.SUM, 0.6),
        (FusionMode.PRODUCT, 0.05),
    ],
)
def test_fusion_modes_by_hand(mode: FusionMode, expected: float) -> None:
    fusion = MultiScaleFusion([1.0, 1.0], mode=mode, sigma=2.0)
    fusion.fit(_normal(mode))
    fused = fusion(_maps(0.5, 0.1), [16, 16])
    assert fused.shape == (1, 1, 16, 16)
    assert torch.allclose(fused, torch.tensor(expected), atol=1e-5)


def test_training_mode_never_moves_the_statistics() -> None:
    fusion = MultiScaleFusion([1.0, 1.0])
    fusion.fit(_normal(FusionMode.ZSCORE))
    before = {k: v.clone() for k, v in fusion.state_dict().items()}
    fusion.train()
    fusion(_maps(0.9, 0.9), [8, 8])
    assert all(torch.equal(v, before[k]) for k, v in fusion.state_dict().items())


@pytest.mark.parametrize("mode", [FusionMode.ZSCORE, FusionMode.QUANTILE, FusionMode.HAZARD])
@pytest.mark.parametrize("value", [1.0, math.nan])
def test_a_map_without_spread_is_refused(mode: FusionMode, value: float) -> None:
    with pytest.raises(ValueError, match="Map 2 of 2"):
        MultiScaleFusion([1.0, 1.0], mode=mode).fit([torch.rand(1000), torch.full((9,), value)])


def test_a_map_of_weight_zero_does_not_enter_and_others_count_by_their_weights() -> None:
    fusion = MultiScaleFusion([0.5, 0.0], mode=FusionMode.SUM, sigma=0)
    assert torch.allclose(fusion(_maps(0.5, 0.1), [8, 8]), torch.tensor(0.25))


@pytest.mark.parametrize("mode", ["hazard", "zscore", "quantile", "sum", "product"])
def test_maps_of_the_whole_image_are_fused_apart(mode: str) -> None:
    torch.manual_seed(0)
    sizes = (4, 1, 8, 1)
    maps = [torch.rand(2, 1, size, size) for size in sizes]
    normal = [torch.rand(500) * 0.5 for _ in maps]
    both = MultiScaleFusion([0.5, 1.0, 0.5, 2.0], tokens=[1, 3], mode=mode, sigma=1.0)
    places = MultiScaleFusion([0.5, 0.5], mode=mode, sigma=1.0)
    tokens = MultiScaleFusion([1.0, 2.0], mode=mode, sigma=0.0)
    both.fit(normal)
    places.fit([normal[0], normal[2]])
    tokens.fit([normal[1], normal[3]])
    torch.testing.assert_close(both(maps, [16, 24]), places([maps[0], maps[2]], [16, 24]))
    torch.testing.assert_close(both.whole_image(maps), tokens([maps[1], maps[3]], [1, 1]))


def test_a_token_of_weight_0_does_not_count() -> None:
    maps = [torch.rand(1, 1, 4, 4), torch.rand(1, 1, 1, 1)]
    fusion = MultiScaleFusion([1.0, 0.0], tokens=[1], mode="sum")
    assert fusion.whole_image(maps).item() == 0.0
