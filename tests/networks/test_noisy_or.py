"""The Noisy-OR loss: its gradients against closed forms, its usual distances by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks import HardGradientLoss, NoisyOrForm, NoisyOrLoss
from multiad_med.networks.losses import FeatureDistillationLoss
from multiad_med.networks.noisy_or import joint_loss
from multiad_med.utils.errors import InputError

DISTANCES = st.floats(0.0, 2.0)
USUAL = st.floats(0.05, 2.0)


@given(DISTANCES, DISTANCES, USUAL, USUAL, st.sampled_from(NoisyOrForm))
def test_gradients_are_those_of_the_closed_forms(
    d_local: float, d_semantic: float, tau_local: float, tau_semantic: float, form: NoisyOrForm
) -> None:
    local, semantic = (
        torch.tensor([d], dtype=torch.float64, requires_grad=True) for d in (d_local, d_semantic)
    )
    tau = torch.tensor([tau_local, tau_semantic], dtype=torch.float64)
    loss = joint_loss(local, semantic, tau, form)
    loss.sum().backward()
    hazard = d_local / tau_local + d_semantic / tau_semantic
    survival = math.exp(-hazard)  # 1 - P
    value, expected = {
        NoisyOrForm.LIKELIHOOD: (hazard, (1 / tau_local, 1 / tau_semantic)),
        NoisyOrForm.PROBABILITY: (
            1 - survival,
            (survival / tau_local, survival / tau_semantic),
        ),
        NoisyOrForm.LINEAR: (
            1 - (1 - d_local / 2) * (1 - d_semantic / 2),
            ((1 - d_semantic / 2) / 2, (1 - d_local / 2) / 2),
        ),
    }[form]
    assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert local.grad is not None
    assert semantic.grad is not None
    assert (local.grad.item(), semantic.grad.item()) == pytest.approx(expected, rel=1e-9)


def test_likelihood_is_minus_the_logarithm_of_no_cause() -> None:
    """-log(1 - P) of the probabilities 1 - exp(-d / tau)."""
    local, semantic, tau = torch.tensor([0.3]), torch.tensor([0.8]), torch.tensor([0.5, 2.0])
    hazard, probability = (
        joint_loss(local, semantic, tau, form)
        for form in (NoisyOrForm.LIKELIHOOD, NoisyOrForm.PROBABILITY)
    )
    of_each = 1 - torch.exp(-torch.stack([local, semantic]) / tau[:, None])
    torch.testing.assert_close(probability, 1 - (1 - of_each).prod(dim=0))
    torch.testing.assert_close(hazard, -torch.log(1 - probability))


def _features(seed: int, batch: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    random = torch.Generator().manual_seed(seed)
    shapes = [(batch, 4, 6, 6), (batch, 8, 3, 3), (batch, 12, 1, 1)]
    teacher, student = ([torch.randn(s, generator=random) for s in shapes] for _ in range(2))
    return teacher, [s.requires_grad_() for s in student]


def _distances(teacher: list[Tensor], student: list[Tensor]) -> Tensor:
    """Mean local and semantic distance, slowly."""
    local = torch.stack(
        [
            1 - F.cosine_similarity(t, s, dim=1).mean()
            for t, s in zip(teacher[:2], student[:2], strict=True)
        ]
    ).mean()
    semantic = 1 - F.cosine_similarity(teacher[2][..., 0, 0], student[2][..., 0, 0], dim=1).mean()
    return torch.stack([local, semantic]).detach()


def test_usual_distances_are_a_running_mean_that_the_first_step_sets() -> None:
    loss = NoisyOrLoss(momentum=0.9)
    expected = None
    for step in range(4):
        teacher, student = _features(step)
        now = _distances(teacher, student)
        expected = now if expected is None else 0.9 * expected + 0.1 * now
        value = loss(teacher, student)
        torch.testing.assert_close(loss.tau, expected)
        torch.testing.assert_close(value, (now / expected).sum())
    assert int(loss.steps) == 4


def test_usual_distances_have_no_gradient() -> None:
    """The first step's tau is its own distance: with a gradient, the loss would have none."""
    teacher, student = _features(0)
    loss = NoisyOrLoss()
    loss(teacher, student).backward()
    assert not loss.tau.requires_grad
    found = student[2].grad
    (expected,) = torch.autograd.grad(
        (1 - F.cosine_similarity(teacher[2].flatten(1), student[2].flatten(1))).mean()
        / loss.tau[1],
        student[2],
    )
    torch.testing.assert_close(found, expected)
    assert float(expected.abs().max()) > 1e-3


def test_evaluation_gives_the_mean_distance_and_moves_nothing() -> None:
    loss = NoisyOrLoss(HardGradientLoss())
    loss(*_features(0))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss.eval()
    teacher, student = _features(1)
    whole = torch.stack(
        [
            1 - F.cosine_similarity(t.flatten(1), s.flatten(1), dim=1).mean()
            for t, s in zip(teacher[:2], student[:2], strict=True)
        ]
    ).mean()
    expected = (whole + _distances(teacher, student)[1]) / 2
    torch.testing.assert_close(loss(teacher, student), expected)
    assert before["steps"] == before["local.steps"] == 1
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


def test_probability_is_likelihood_in_its_warm_up() -> None:
    kinds = {form: NoisyOrLoss(form=form, warmup=2) for form in ("likelihood", "probability")}
    for step in range(4):
        hazard, found = (loss(*_features(step)) for loss in kinds.values())
        if step < 2:
            assert torch.equal(found, hazard)
        else:
            assert found < 1 < hazard


def test_linear_needs_no_usual_distances() -> None:
    teacher, student = _features(0, batch=1)
    loss = NoisyOrLoss(form="linear")
    local, semantic = _distances(teacher, student)
    loss.tau.fill_(1e9)
    expected = 1 - (1 - local / 2) * (1 - semantic / 2)
    torch.testing.assert_close(loss(teacher, student), expected)


def test_equal_features_give_a_finite_loss() -> None:
    """A student that is the teacher: both usual distances are 0, or rounding."""
    teacher, _ = _features(0)
    student = [t.clone().requires_grad_() for t in teacher]
    loss = NoisyOrLoss()
    for _ in range(2):
        value = loss(teacher, student)
        value.backward()
        assert value.isfinite()
    assert all(s.grad is not None and s.grad.isfinite().all() for s in student)


def test_a_saved_loss_goes_on_where_it_was() -> None:
    loss, other = (NoisyOrLoss(HardGradientLoss(warmup=10)) for _ in range(2))
    for step in range(3):
        loss(*_features(step))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(*_features(7)), loss(*_features(7)))
    assert torch.equal(other.tau, loss.tau)


def test_half_precision_distances_are_taken_in_float32() -> None:
    teacher, student = _features(0)
    half = [[f.detach().bfloat16() for f in features] for features in (teacher, student)]
    value = NoisyOrLoss()(*half)
    assert value.dtype == torch.float32
    torch.testing.assert_close(
        value, NoisyOrLoss()(*[[f.float() for f in fs] for fs in half]), atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("stages", [slice(0, 2), slice(2, 3), slice(0, 0)])
def test_features_without_a_token_last_or_without_maps_are_refused(stages: slice) -> None:
    teacher, student = _features(0)
    with pytest.raises(InputError, match=r"needs feature maps and, last, a token \(B, C, 1, 1\)"):
        NoisyOrLoss()(teacher[stages], student[stages])


@pytest.mark.parametrize(
    "given", [{"momentum": 1.0}, {"momentum": -0.1}, {"warmup": -1}, {"form": "or"}]
)
def test_what_is_out_of_range_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(InputError):
        NoisyOrLoss(**given)


def test_student_features_of_another_shape_are_refused() -> None:
    teacher, student = _features(0)
    with pytest.raises(InputError, match="differ"):
        NoisyOrLoss(FeatureDistillationLoss())(teacher, [student[1], student[0], student[2]])
    with pytest.raises(InputError, match="differ"):
        NoisyOrLoss()(teacher, [*student[:2], student[2][:, :6]])
