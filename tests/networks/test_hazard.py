"""Hazards against what the theory says of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from multiad_med.networks import FusionMode, Hazard, MultiScaleFusion
from multiad_med.utils.errors import InputError


def fitted(distances: torch.Tensor) -> Hazard:
    hazard = Hazard()
    hazard.fit(distances)
    return hazard


@pytest.mark.parametrize("shape", ["lognormal", "chi2", "uniform"])
def test_hazards_of_fresh_normal_distances_are_exponential(shape):
    random = torch.Generator().manual_seed(0)

    def draw(n: int) -> torch.Tensor:
        if shape == "uniform":
            return torch.rand(n, generator=random)
        z = torch.randn(n, 5, generator=random)
        return z.square().sum(dim=1) if shape == "chi2" else (0.5 * z[:, 0]).exp()

    hazard = fitted(draw(200_000))
    fresh = hazard(draw(2_000).reshape(2, 1, 20, 50)).flatten()
    assert kstest(fresh.numpy(), "expon").pvalue > 0.01
    assert fresh.mean() == pytest.approx(1.0, abs=0.1)


def test_the_hazard_is_minus_log_of_the_share_of_normal_distances_beyond():
    # Distances 1 to 10,000: of 9,000 a tenth lies beyond, of 5,000 a half.
    hazard = fitted(torch.arange(1.0, 10_001.0))
    d = torch.tensor([1.0, 5_000.0, 9_000.0, 9_900.0]).reshape(1, 1, 1, 4)
    expected = torch.tensor([0.0, math.log(2), math.log(10), math.log(100)])
    torch.testing.assert_close(hazard(d).flatten(), expected, atol=0.01, rtol=0.01)


def test_the_tail_is_linear_with_the_mean_excess_beyond_the_last_knot():
    values = torch.cat([torch.linspace(0, 1, 990), torch.linspace(2, 3, 10)])
    hazard = fitted(values)  # 1,000 values: the tail has ten of them
    top = float(hazard.knots[-1])
    excess = float((values[values > top] - top).mean())
    far = hazard(torch.tensor([[[[50.0, 51.0]]]])).flatten()
    assert float(far[1] - far[0]) == pytest.approx(1 / excess, rel=1e-3)


@given(st.integers(0, 10_000), st.integers(2, 300))
def test_the_order_of_distances_is_kept(seed, count):
    random = torch.Generator().manual_seed(seed)
    hazard = fitted(
        torch.rand(count, generator=random).exp().round(decimals=2) + torch.arange(count) % 2
    )
    d = torch.linspace(0, 100, 400).reshape(1, 1, 20, 20)
    h = hazard(d).flatten()
    assert (h >= 0).all()
    assert (h.diff() >= -1e-5 * h[1:]).all()


@pytest.mark.parametrize("values", [torch.ones(50), torch.ones(1), torch.tensor([1.0, torch.nan])])
def test_distances_that_tell_nothing_are_refused(values):
    with pytest.raises(InputError, match="do not differ, or are not finite"):
        fitted(values)


def test_adding_hazards_is_a_noisy_or_of_the_experts_probabilities():
    random = torch.Generator().manual_seed(3)
    normal = [torch.rand(1000, generator=random), torch.rand(1000, generator=random).exp()]
    fusion = MultiScaleFusion([1.0, 1.0], mode=FusionMode.HAZARD, sigma=0)
    fusion.fit(normal)
    maps = [torch.full((1, 1, 4, 4), 0.9), torch.full((1, 1, 4, 4), 2.3)]
    survive = [torch.exp(-level(m)) for level, m in zip(fusion.levels, maps, strict=True)]
    joint = 1 - survive[0] * survive[1]  # 1 - (1 - p1)(1 - p2), p = 1 - S
    torch.testing.assert_close(1 - torch.exp(-fusion(maps, [4, 4])), joint)
