"""The joint loss of two students: a Noisy-OR of their distances (second paper, our reading)."""

from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor, nn
from torch import distributed as dist

from multiad_med.networks.cosine import cosine_similarity
from multiad_med.networks.losses import FeatureDistillationLoss, check_alike
from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = ["LossOfImages", "NoisyOrForm", "NoisyOrLoss", "joint_loss"]


class NoisyOrForm(StrEnum):
    """How the distances of the local and the semantic student are joined, for normal images.

    The distances of an image are d, their usual sizes tau, and the hazard is the sum of d / tau.
    """

    LIKELIHOOD = "likelihood"
    """``-log(1 - P)``, the hazard itself: each student learns on its own, both on one scale."""
    PROBABILITY = "probability"
    """``P = 1 - exp(-hazard)``: an image that one student finds odd moves the other one less."""
    LINEAR = "linear"
    """``1 - (1 - d_local / 2)(1 - d_semantic / 2)``: cosine distances as probabilities, without tau."""


class LossOfImages(Protocol):
    """A loss on feature maps that can be told for each image."""

    def of_images(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Return a distance ``(B,)`` for each image."""


def joint_loss(local: Tensor, semantic: Tensor, tau: Tensor, form: NoisyOrForm) -> Tensor:
    """Join both distances of each image.

    Args:
        local: ``(B,)``.
        semantic: ``(B,)``.
        tau: usual local and semantic distance, ``(2,)``.
        form: see :class:`NoisyOrForm`.

    Returns:
        ``(B,)``.
    """
    if form is NoisyOrForm.LINEAR:
        return 1 - (1 - local / 2) * (1 - semantic / 2)
    hazard = local / tau[0] + semantic / tau[1]
    return hazard if form is NoisyOrForm.LIKELIHOOD else -torch.expm1(-hazard)


class NoisyOrLoss(nn.Module):
    """Joins the distances of a local and a semantic student.

    The last stage is the token of the whole image, the others are feature maps. The usual distances are
    running means of what was seen in training, without gradients, and the same in all processes of a
    group. In evaluation mode the loss is the mean of both distances, so that epochs can be compared.

    Args:
        local: loss of the feature maps; without it the cosine distance, averaged over places and stages.
        form: see :class:`NoisyOrForm`.
        momentum: how much of the running means stays at each step, in [0, 1).
        warmup: steps in which ``probability`` is ``likelihood``, until the usual distances are known.

    Raises:
        InputError: on an unknown form, or a momentum or a number of steps out of range.
    """

    tau: Tensor
    steps: Tensor

    def __init__(
        self,
        local: LossOfImages | None = None,
        *,
        form: NoisyOrForm | str = NoisyOrForm.LIKELIHOOD,
        momentum: float = 0.99,
        warmup: int = 100,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1 or warmup < 0:
            raise InputError(
                f"momentum must be in [0, 1) and warmup at least 0, got {momentum} and {warmup}."
            )
        self.local = FeatureDistillationLoss() if local is None else local
        self.form = choose(NoisyOrForm, form, what="form")
        self.momentum = momentum
        self.warmup = warmup
        self.register_buffer("tau", torch.ones(2))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Return the loss, a scalar.

        Args:
            teacher: feature maps ``(B, C_i, h_i, w_i)``, then the token ``(B, C, 1, 1)``.
            student: features of the same shapes.

        Raises:
            InputError: when the last stage is no token, nothing is before it, or shapes differ.
        """
        if len(teacher) < 2 or teacher[-1].shape[2:] != (1, 1):
            shapes = [tuple(t.shape) for t in teacher]
            raise InputError(
                f"A Noisy-OR loss needs feature maps and, last, a token (B, C, 1, 1); got {shapes}. "
                "Choose the student 'dual' and distil its last stage."
            )
        check_alike(teacher, student)
        local = self.local.of_images(teacher[:-1], student[:-1])
        semantic = 1 - cosine_similarity(teacher[-1].flatten(1), student[-1].flatten(1), dim=1)
        if not self.training:
            return (local.mean() + semantic.mean()) / 2
        self._update(torch.stack([local.mean(), semantic.mean()]).detach())
        form = self.form
        if form is NoisyOrForm.PROBABILITY and self.steps <= self.warmup:
            form = NoisyOrForm.LIKELIHOOD
        return joint_loss(local, semantic, self.tau, form).mean()

    def _update(self, means: Tensor) -> None:
        """Take in a step's mean distances."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(means)
            means = means / dist.get_world_size()
        kept = self.momentum if self.steps > 0 else 0.0
        smallest = torch.finfo(torch.float32).tiny
        self.tau = (kept * self.tau.to(means) + (1 - kept) * means).clamp_min(smallest)
        self.steps += 1
