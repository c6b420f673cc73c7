"""Losses by hand (Eq. 6-11)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from multiad_med.networks.losses import (
    FeatureDistillationLoss,
    adversarial_loss,
    discriminator_loss,
)


def _features(*vectors: list[float]) -> torch.Tensor:
    """Vectors side by side: (1, C, 1, n)."""
    return torch.tensor(vectors).T[None, :, None, :]


def test_distillation_loss_is_the_mean_over_locations_then_stages() -> None:
    teacher = [_features([1.0, 0.0], [0.0, 2.0]), _features([1.0, 1.0])]
    # Stage 1: distances 0 and 1, mean 0.5. Stage 2: cosine of 45 degrees.
    student = [_features([5.0, 0.0], [3.0, 0.0]), _features([1.0, 0.0])]
    expected = (0.5 + (1 - math.sqrt(0.5))) / 2
    assert FeatureDistillationLoss()(teacher, student).item() == pytest.approx(expected, abs=1e-6)


def test_whole_map_mode_takes_one_cosine_per_stage() -> None:
    teacher, student = _features([1.0, 0.0], [0.0, 2.0]), _features([5.0, 0.0], [3.0, 0.0])
    expected = 1 - 5 / (math.sqrt(1 + 4) * math.sqrt(25 + 9))
    loss = FeatureDistillationLoss(mode="whole_map")([teacher], [student])
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_equal_features_cost_nothing_whatever_their_scale() -> None:
    features = [torch.randn(2, 8, 4, 4)]
    loss = FeatureDistillationLoss()(features, [7 * features[0]])
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_hard_mining_weighs_down_all_but_the_hardest_locations_of_each_image() -> None:
    # Distances of four locations: 1, 0.5, 0, 0 in the first image, 0, 0, 0, 0.2 in the second.
    cosines = torch.tensor([[0.0, 0.5, 1.0, 1.0], [1.0, 1.0, 1.0, 0.8]])
    teacher = torch.stack([torch.ones(2, 4), torch.zeros(2, 4)], dim=1)[..., None]
    student = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1)[..., None]
    loss = FeatureDistillationLoss(hardest=0.25, easy_weight=0.1)([teacher], [student])
    expected = ((1 + 0.1 * 0.5) / 1.3 + 0.2 / 1.3) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    half = FeatureDistillationLoss(hardest=0.5, easy_weight=0.0)([teacher[:1]], [student[:1]])
    assert half.item() == pytest.approx(0.75, abs=1e-6)


def test_hard_mining_of_every_location_or_with_full_weight_is_the_plain_mean() -> None:
    teacher, student = torch.randn(2, 8, 5, 5), torch.randn(2, 8, 5, 5)
    plain = FeatureDistillationLoss()([teacher], [student])
    full = FeatureDistillationLoss(hardest=0.1, easy_weight=1.0)([teacher], [student])
    torch.testing.assert_close(full, plain)


def test_hard_mining_moves_the_hardest_location_most() -> None:
    teacher, student = torch.randn(1, 4, 1, 20), torch.randn(1, 4, 1, 20, requires_grad=True)
    plain = FeatureDistillationLoss()([teacher], [student])
    (before,) = torch.autograd.grad(plain, student)
    mined = FeatureDistillationLoss(hardest=0.05, easy_weight=0.1)([teacher], [student])
    (after,) = torch.autograd.grad(mined, student)
    worst = (1 - torch.cosine_similarity(teacher, student)).argmax()
    ratio = (after.norm(dim=1) / before.norm(dim=1)).flatten()
    assert ratio.argmax() == worst
    assert ratio[worst].item() == pytest.approx(20 / 2.9, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hardest": 0.0}, "hardest must be"),
        ({"hardest": 1.5}, "hardest must be"),
        ({"easy_weight": -0.1}, "easy_weight must be"),
        ({"mode": "global"}, r"mode.*\['local', 'whole_map'\].*got 'global'"),
        ({"hardest": 0.1, "mode": "whole_map"}, "mode='local'"),
    ],
)
def test_hard_mining_without_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureDistillationLoss(**options)


def test_features_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        FeatureDistillationLoss()([torch.ones(1, 2, 3, 3)], [torch.ones(1, 2, 4, 4)])
    with pytest.raises(ValueError, match="differ"):
        FeatureDistillationLoss()([], [])


def test_adversarial_terms_equal_the_papers_logarithms() -> None:
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [3.0]])
    d_real, d_fake = torch.sigmoid(real), torch.sigmoid(fake)
    expected_d = -(d_real.log() + (1 - d_fake).log()).mean()
    assert discriminator_loss(real, fake).item() == pytest.approx(expected_d.item(), abs=1e-6)
    assert adversarial_loss(fake).item() == pytest.approx(-d_fake.log().mean().item(), abs=1e-6)


def test_a_certain_discriminator_gives_a_finite_loss() -> None:
    assert torch.isfinite(discriminator_loss(torch.tensor([[-1e4]]), torch.tensor([[1e4]])))
