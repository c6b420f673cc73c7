"""StableAdamW: AdamW, but for large updates, which are by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from multiad_med.training import StableAdamW
from multiad_med.utils.errors import InputError

OPTIONS: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def _after(optimiser: type, gradients: list[torch.Tensor], **options: Any) -> list[torch.Tensor]:
    """A parameter after each step."""
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
    of_steps = optimiser([parameter], **{**OPTIONS, **options})
    found = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        of_steps.step()
        found.append(parameter.detach().clone())
    return found


@pytest.mark.parametrize("amsgrad", [False, True])
def test_where_no_update_is_large_it_is_torchs_adamw(amsgrad: bool) -> None:
    """Gradients that shrink: none is larger than the mean of what was."""
    torch.manual_seed(0)
    first = torch.randn(2, 3)
    gradients = [first * 0.95**step for step in range(20)]
    ours = _after(StableAdamW, gradients, amsgrad=amsgrad)
    theirs = _after(torch.optim.AdamW, gradients, amsgrad=amsgrad)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_a_large_update_divides_the_learning_rate_by_its_root_mean_square() -> None:
    small, large = torch.full((2, 3), 0.1), torch.full((2, 3), 10.0)
    large[0, 0] = 4.0
    before, after = _after(StableAdamW, [small, large], amsgrad=True)
    # Second step by hand, entry by entry.
    mean = 0.9 * (0.1 * small) + 0.1 * large
    square = 0.99 * (0.01 * small**2) + 0.01 * large**2  # above the first step's
    corrected = (square / (1 - 0.99**2)).sqrt() + 1e-8
    size = math.sqrt(float(((large / corrected) ** 2).mean()))
    assert size > 1.3
    expected = before * (1 - 0.01 * 0.1) - 0.01 / size * (mean / (1 - 0.9**2)) / corrected
    torch.testing.assert_close(after, expected, atol=1e-7, rtol=1e-6)
    theirs = _after(torch.optim.AdamW, [small, large], amsgrad=True)[1]
    assert float((after - theirs).abs().max()) > 1e-3


def test_each_tensor_has_its_own_size() -> None:
    """A tensor with a sudden gradient does not slow down another."""
    parameters = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimiser = StableAdamW(parameters, **OPTIONS)
    for gradients in ((0.1, 0.1), (0.1, 10.0)):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.full((3,), gradient)
        optimiser.step()
    torch.testing.assert_close(
        parameters[0].detach(),
        _zeros_after([0.1, 0.1]),
    )


def _zeros_after(gradients: list[float]) -> torch.Tensor:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW([parameter], **OPTIONS, amsgrad=True)
    for gradient in gradients:
        parameter.grad = torch.full((3,), gradient)
        optimiser.step()
    return parameter.detach()


def test_groups_have_learning_rates_and_decays_of_their_own() -> None:
    slow, fast, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    groups = [{"params": [slow, idle], "lr": 0.001, "weight_decay": 0.0}, {"params": [fast]}]
    optimiser = StableAdamW(groups, lr=0.1, weight_decay=0.5)
    slow.grad, fast.grad = torch.ones(2), torch.ones(2)
    assert optimiser.step(lambda: 3.0) == 3.0
    torch.testing.assert_close(slow.detach(), torch.full((2,), 1 - 0.001))
    torch.testing.assert_close(fast.detach(), torch.full((2,), 0.95 - 0.1))
    assert torch.equal(idle.detach(), torch.ones(2))


def test_a_resumed_optimiser_goes_on_bit_by_bit() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(4) for _ in range(6)]
    alone, resumed = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    whole, first, second = (StableAdamW([p]) for p in (alone, resumed, resumed))
    for number, gradient in enumerate(gradients):
        if number == 3:
            second.load_state_dict(first.state_dict())
        for parameter, optimiser in ((alone, whole), (resumed, first if number < 3 else second)):
            parameter.grad = gradient.clone()
            optimiser.step()
    assert torch.equal(alone, resumed)


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan])
def test_a_learning_rate_that_is_not_positive_is_refused(lr: float) -> None:
    with pytest.raises(InputError, match="lr must be above 0"):
        StableAdamW([torch.nn.Parameter(torch.ones(1))], lr=lr)
