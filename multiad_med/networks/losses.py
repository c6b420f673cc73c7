"""Losses of teacher-student distillation (paper sections 3.2 and 3.3)."""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.cosine import cosine_similarity
from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = [
    "CosineMode",
    "FeatureDistillationLoss",
    "adversarial_loss",
    "check_alike",
    "discriminator_loss",
]


def check_alike(teacher: list[Tensor], student: list[Tensor]) -> None:
    """Refuse features that cannot be compared.

    Raises:
        InputError: when there are none, or numbers of stages or shapes differ.
    """
    shapes = [[tuple(f.shape) for f in features] for features in (teacher, student)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise InputError(f"Teacher and student features differ: {shapes[0]} and {shapes[1]}.")


class CosineMode(StrEnum):
    """Over what the cosine of teacher and student is taken."""

    LOCAL = "local"
    """Over the channels at each location, then averaged (Eq. 8)."""
    WHOLE_MAP = "whole_map"
    """Over a stage's whole feature map as one vector, as in reverse distillation."""


class FeatureDistillationLoss(nn.Module):
    """L_G, the mean cosine distance of teacher and student features (paper Eq. 6-8).

    L2 normalisation (Eq. 6) is part of the cosine. Distances are averaged over locations, then
    over stages, so that each stage counts the same whatever its size.

    With ``hardest`` below 1 a student learns mostly where it is still wrong (hard mining; not in
    the paper, measured in docs/decisions.md): in each image and stage, the given part of the
    locations, those of the largest distances, counts fully and the others with ``easy_weight``.

    Args:
        mode: see :class:`CosineMode`.
        hardest: part of an image's locations that counts fully, in (0, 1]; 1 is the paper's.
        easy_weight: weight of the other locations, in [0, 1].

    Raises:
        InputError: on an unknown mode, a part or weight out of range, or hard mining without locations.
    """

    def __init__(
        self,
        *,
        mode: CosineMode | str = CosineMode.LOCAL,
        hardest: float = 1.0,
        easy_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.mode = choose(CosineMode, mode, what="mode")
        if not 0 < hardest <= 1:
            raise InputError(f"hardest must be above 0 and at most 1, got {hardest}.")
        if not 0 <= easy_weight <= 1:
            raise InputError(f"easy_weight must be from 0 to 1, got {easy_weight}.")
        if hardest < 1 and self.mode is CosineMode.WHOLE_MAP:
            raise InputError(
                "A whole map has one distance, of which none is hardest; use mode='local'."
            )
        self.hardest = hardest
        self.easy_weight = easy_weight

    def forward(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Scalar in [0, 2].

        Args:
            teacher: feature maps ``(B, C_i, h_i, w_i)``.
            student: feature maps of the same shapes.

        Raises:
            InputError: when the numbers of stages or the shapes differ.
        """
        return torch.stack([d.mean() for d in self._of_stages(teacher, student)]).mean()

    def of_images(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Return each image's distance ``(B,)`` in [0, 2]; see :meth:`forward`, its mean."""
        return torch.stack(self._of_stages(teacher, student)).mean(dim=0)

    def _of_stages(self, teacher: list[Tensor], student: list[Tensor]) -> list[Tensor]:
        """Each stage's distance of each image ``(B,)``."""
        check_alike(teacher, student)
        if self.mode is CosineMode.WHOLE_MAP:
            return [
                1 - cosine_similarity(t.flatten(1), s.flatten(1), dim=1)
                for t, s in zip(teacher, student, strict=True)
            ]
        return [
            self._mean(1 - cosine_similarity(t.flatten(2), s.flatten(2), dim=1))
            for t, s in zip(teacher, student, strict=True)
        ]

    def _mean(self, distances: Tensor) -> Tensor:
        """Each image's ``(B,)``, over its locations ``(B, h * w)``, the hardest with more weight."""
        if self.hardest == 1:
            return distances.mean(dim=1)
        count = math.ceil(self.hardest * distances.shape[1])
        least = distances.detach().topk(count, dim=1).values[:, -1:]
        weight = torch.where(distances >= least, 1.0, self.easy_weight)
        return (distances * weight).sum(1) / weight.sum(1)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return L_D of Eq. 10 from logits ``(B, 1)`` of teacher (real) and student (fake) features.

    From logits rather than probabilities: MONAI's ``PatchAdversarialLoss(criterion="bce")`` applies
    sigmoid first, which is not finite for a certain discriminator and not allowed under autocast.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """Return L_adv of Eq. 11, ``-log D(F_S)`` averaged over logits ``(B, 1)`` of student features."""
    return F.softplus(-fake).mean()
