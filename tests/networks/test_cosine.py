"""The cosine: PyTorch's values and gradients, and all digits of features in half precision."""

import pytest
import torch
from torch.nn import functional as F

from multiad_med.networks.cosine import cosine_similarity
from multiad_med.networks.losses import FeatureDistillationLoss


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 24, 5, 7, generator=draws)
    return a, b.requires_grad_()


@pytest.mark.parametrize("scripted", [False, True])
def test_values_and_gradients_are_pytorchs(scripted: bool) -> None:
    cosine = torch.jit.script(cosine_similarity) if scripted else cosine_similarity
    a, b = pair()
    weights = torch.arange(70.0).reshape(2, 5, 7)
    found = cosine(a, b, dim=1)
    expected = F.cosine_similarity(a, b, dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), b),
        torch.autograd.grad((expected * weights).sum(), b),
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_right_angle_60_degrees_and_the_opposite_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[0.0, 5.0], [1.0, 3**0.5], [-3.0, -4.0]])
    torch.testing.assert_close(cosine_similarity(a, b, dim=1), torch.tensor([0.0, 0.5, -1.0]))


def test_a_vector_of_zeros_has_cosine_0_and_a_finite_gradient() -> None:
    zero = torch.zeros(1, 3, requires_grad=True)
    found = cosine_similarity(torch.ones(1, 3), zero, dim=1)
    (gradient,) = torch.autograd.grad(found.sum(), zero)
    assert found.item() == 0
    assert gradient.isfinite().all()


def test_the_loss_of_bfloat16_features_has_all_digits() -> None:
    a, _ = pair()
    teacher = [a.to(torch.bfloat16)]
    student = [(a + 0.02 * a.flip(1)).to(torch.bfloat16)]
    exact = 1 - F.cosine_similarity(teacher[0].double(), student[0].double(), dim=1).mean()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = FeatureDistillationLoss()(teacher, student)
    assert found.dtype == torch.float32
    assert 1e-5 < exact < 1e-3  # bfloat16 knows 1 and .996, nothing between
    assert found.item() == pytest.approx(exact.item(), rel=1e-3)
