"""Losses by hand (Eq. 6-11)."""

from __future__ import annotations

import math

import pytest
import torch

from multiad_med.losses import FeatureDistillationLoss, adversarial_loss, discriminator_loss


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
