"""Dinomaly's loss: its value, and what its gradient is made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks import HardGradientLoss
from multiad_med.utils.errors import InputError


def _features(seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    random = torch.Generator().manual_seed(seed)
    shapes = [(2, 5, 4, 5), (2, 5, 4, 5)]
    teacher, student = ([torch.randn(s, generator=random) for s in shapes] for _ in range(2))
    return teacher, [s.requires_grad_() for s in student]


def _gradients(loss: HardGradientLoss, seed: int = 0) -> list[Tensor]:
    teacher, student = _features(seed)
    loss(teacher, student).backward()
    return [s.grad for s in student if s.grad is not None]


def _places(seed: int = 0) -> list[Tensor]:
    """Distances of all places of both images ``(40,)``, per stage."""
    pairs = zip(*_features(seed), strict=True)
    return [(1 - F.cosine_similarity(t, s, dim=1)).detach().flatten() for t, s in pairs]


@pytest.mark.parametrize("warmup", [0, 1000])
def test_the_value_is_the_distance_of_whole_maps(warmup: int) -> None:
    teacher, student = _features()
    of_images = []
    for t, s in zip(teacher, student, strict=True):
        a, b = t.flatten(1), s.flatten(1)
        of_images.append(1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))
    expected = (of_images[0] + of_images[1]) / 2
    loss = HardGradientLoss(warmup=warmup)
    torch.testing.assert_close(loss.of_images(teacher, student), expected)
    torch.testing.assert_close(loss(teacher, student), expected.mean())


def test_gradients_of_easy_places_of_the_whole_batch_are_a_tenth() -> None:
    mined = _gradients(HardGradientLoss(easy=0.75, warmup=0))
    plain = _gradients(HardGradientLoss(easy=0.0, warmup=0))
    for ours, whole, distances in zip(mined, plain, _places(), strict=True):
        hardest = distances.argsort(descending=True)[:10]  # a quarter of 40
        hard = torch.zeros(40, dtype=torch.bool)
        hard[hardest] = True
        factor = torch.where(hard, 1.0, 0.1).reshape(2, 1, 4, 5)
        torch.testing.assert_close(ours, whole * factor)
        assert float(whole.abs().min()) > 0


def test_without_easy_places_it_is_the_plain_gradient() -> None:
    teacher, student = _features()
    pairs = zip(teacher, student, strict=True)
    plain = sum((1 - F.cosine_similarity(t.flatten(1), s.flatten(1))).mean() / 2 for t, s in pairs)
    expected = torch.autograd.grad(plain, student)
    for ours, theirs in zip(_gradients(HardGradientLoss(easy=0.0)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_easy_part_grows_evenly_over_the_warm_up() -> None:
    """Of 40 places at most three sixteenths more are easy at each of four steps."""
    loss = HardGradientLoss(easy=0.75, warmup=4)
    plain = _gradients(HardGradientLoss(easy=0.0))[0]
    found = []
    for _ in range(6):
        ratio = _gradients(loss)[0] / plain
        found.append(int((ratio[:, 0] < 0.5).sum()))
    assert found == [0, 8, 15, 23, 30, 30]


def test_evaluation_is_no_step() -> None:
    loss = HardGradientLoss(warmup=4).eval()
    loss(*_features())
    assert int(loss.steps) == 0
    loss.train()(*_features())
    assert int(loss.steps) == 1


def test_without_gradients_it_is_the_same_value() -> None:
    teacher, student = _features()
    with torch.no_grad():
        value = HardGradientLoss()(teacher, student)
    torch.testing.assert_close(value, HardGradientLoss()(teacher, student).detach())


def test_teachers_get_no_gradient() -> None:
    teacher, student = _features()
    teacher = [t.requires_grad_() for t in teacher]
    HardGradientLoss()(teacher, student).backward()
    assert all(t.grad is None for t in teacher)


def test_it_trains_in_mixed_precision() -> None:
    layer = torch.nn.Conv2d(3, 5, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        student = layer(torch.randn(2, 3, 4, 5))
        assert student.dtype == torch.bfloat16
        loss = HardGradientLoss(warmup=0)([torch.randn(2, 5, 4, 5)], [student])
    loss.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "given", [{"easy": 1.0}, {"easy": -0.1}, {"easy_gradient": 1.1}, {"warmup": -1}]
)
def test_what_is_out_of_range_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(InputError, match="easy must be in"):
        HardGradientLoss(**given)


def test_features_of_other_shapes_are_refused() -> None:
    teacher, student = _features()
    with pytest.raises(InputError, match="differ"):
        HardGradientLoss()(teacher, [student[0], student[1][..., :4]])
    with pytest.raises(InputError, match="differ"):
        HardGradientLoss()(teacher, student[:1])
