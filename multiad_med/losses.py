"""Losses of teacher-student distillation (paper sections 3.2 and 3.3)."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CosineMode", "FeatureDistillationLoss", "adversarial_loss", "discriminator_loss"]


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

    Args:
        mode: see :class:`CosineMode`.
    """

    def __init__(self, *, mode: CosineMode | str = CosineMode.LOCAL) -> None:
        super().__init__()
        self.mode = CosineMode(mode)

    def forward(self, teacher: list[Tensor], student: list[Tensor]) -> Tensor:
        """Scalar in [0, 2].

        Args:
            teacher: feature maps ``(B, C_i, h_i, w_i)``.
            student: feature maps of the same shapes.

        Raises:
            ValueError: when the numbers of stages or the shapes differ.
        """
        shapes = [[tuple(f.shape) for f in features] for features in (teacher, student)]
        if not shapes[0] or shapes[0] != shapes[1]:
            raise ValueError(f"Teacher and student features differ: {shapes[0]} and {shapes[1]}.")
        start = 2 if self.mode is CosineMode.LOCAL else 1
        distances = [
            1 - F.cosine_similarity(t.flatten(start), s.flatten(start), dim=1)
            for t, s in zip(teacher, student, strict=True)
        ]
        return torch.stack([d.mean() for d in distances]).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """L_D of Eq. 10 from logits ``(B, 1)`` of teacher (real) and student (fake) features.

    From logits rather than probabilities: MONAI's ``PatchAdversarialLoss(criterion="bce")`` applies
    sigmoid first, which is not finite for a certain discriminator and not allowed under autocast.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """L_adv of Eq. 11, ``-log D(F_S)`` averaged over logits ``(B, 1)`` of student features."""
    return F.softplus(-fake).mean()
