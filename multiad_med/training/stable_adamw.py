"""The optimiser of Dinomaly."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from multiad_med.utils.errors import InputError

__all__ = ["StableAdamW"]


class StableAdamW(Optimizer):
    """AdamW whose step of a tensor is made smaller where its update is large (Wortsman et al., 2023).

    The root mean square of ``gradient / sqrt(second moment)`` over a tensor divides its learning rate
    where it is above 1, so that sudden gradients do no harm. Neither torch nor MONAI has it.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: part of a weight that a step takes off, times the learning rate.
        amsgrad: whether the largest second moment so far counts.

    Raises:
        InputError: when the learning rate is not positive.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-10,
        weight_decay: float = 1e-4,
        amsgrad: bool = True,
    ) -> None:
        if not lr > 0:
            raise InputError(f"lr must be above 0, got {lr}.")
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make a step; see ``torch.optim.Optimizer``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            names = ("mean", "square", "largest") if group["amsgrad"] else ("mean", "square")
            state.update({name: torch.zeros_like(parameter) for name in names})
        state["step"] += 1
        steps = float(state["step"])
        (beta1, beta2), lr = group["betas"], group["lr"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        square = state["square"]
        if group["amsgrad"]:
            square = torch.maximum(state["largest"], square, out=state["largest"])
        denominator = (square / (1 - beta2**steps)).sqrt() + group["eps"]
        too_large = max(1.0, float((gradient / denominator).square().mean().sqrt()))
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(state["mean"], denominator, value=-lr / (1 - beta1**steps) / too_large)
