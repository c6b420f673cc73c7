"""Dinomaly's loss: whole maps are compared, and easy places move the student little."""

from functools import partial

import torch
from torch import Tensor, nn

from multiad_med.networks.cosine import cosine_similarity
from multiad_med.networks.losses import check_alike
from multiad_med.utils.errors import InputError

__all__ = ["HardGradientLoss"]


class HardGradientLoss(nn.Module):
    """The mean cosine distance of whole maps, with gradients of easy places made small.

    Its value weighs all places alike. Of its gradient, places whose distance is below a quantile over the
    whole batch, of a process its own, get a part only. The quantile rises from 0 to ``easy`` over the
    first steps (Dinomaly, Guo et al., CVPR 2025).

    Args:
        easy: part of the places that are easy, in [0, 1), at the end.
        easy_gradient: factor of their gradient, in [0, 1].
        warmup: steps over which ``easy`` is reached; 0 is at once.

    Raises:
        InputError: when a part is out of range.
    """

    steps: Tensor

    def __init__(
        self, *, easy: float = 0.9, easy_gradient: float = 0.1, warmup: int = 1000
    ) -> None:
        super().__init__()
        if not 0 <= easy < 1 or not 0 <= easy_gradient <= 1 or warmup < 0:
            raise InputError(
                f"easy must be in [0, 1), easy_gradient in [0, 1] and warmup at least 0, got {easy}, "
                f"{easy_gradient} and {warmup}."
            )
        self.easy = easy
        self.easy_gradient = easy_gradient
        self.warmup = warmup
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Return the mean of :meth:`of_images`."""
        return self.of_images(teacher, student).mean()

    def of_images(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Return each image's distance ``(B,)`` in [0, 2]; in training mode a call is a step.

        Args:
            teacher: feature maps ``(B, C_i, h_i, w_i)``.
            student: feature maps of the same shapes.

        Raises:
            InputError: when the numbers of stages or the shapes differ.
        """
        check_alike(teacher, student)
        part = self.easy
        if self.warmup:
            part *= min(1.0, int(self.steps) / self.warmup)
        distances = [
            _whole_map_distance(t.detach().float(), s.float(), part, self.easy_gradient)
            for t, s in zip(teacher, student, strict=True)
        ]
        if self.training:
            self.steps += 1
        return torch.stack(distances).mean(dim=0)


def _whole_map_distance(teacher: Tensor, student: Tensor, easy: float, factor: float) -> Tensor:
    if student.requires_grad:
        with torch.no_grad():
            places = 1 - cosine_similarity(teacher, student, dim=1)
            hard = max(1, int(places.numel() * (1 - easy)))
            least = places.flatten().topk(hard).values[-1]
            scale = torch.where(places < least, factor, 1.0).unsqueeze(1)
        student.register_hook(partial(torch.mul, scale))
    return 1 - cosine_similarity(teacher.flatten(1), student.flatten(1), dim=1)
