"""A token of the whole image, as one more stage of any teacher."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.extractor import WHOLE_IMAGE, FeatureExtractor, takes_stages
from multiad_med.utils.errors import InputError

__all__ = ["WithSemanticToken", "semantic_stages"]

_POOLED = 2
"""Deepest stages that the token of a convolutional teacher is made of."""


def semantic_stages(strides: Sequence[int]) -> list[int]:
    """Return the stages, counted from 1, that are a token of the whole image."""
    return [stage for stage, stride in enumerate(strides, start=1) if stride == WHOLE_IMAGE]


class WithSemanticToken(nn.Module):
    """Adds a token of the whole image to a teacher that has none.

    The token is what a class token is to a vision transformer: the means over the image of the two
    deepest stages, each normalised as by a LayerNorm without parameters, one after the other. This is
    our reading; the second paper knows vision transformers only.

    Args:
        teacher: with feature maps at each stage.

    Raises:
        InputError: when it has a token already.
    """

    chooses: Final[bool]

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        if not isinstance(teacher, FeatureExtractor):
            raise InputError(f"{type(teacher).__name__} has no `channels` and `strides`.")
        if WHOLE_IMAGE in teacher.strides:
            raise InputError("The teacher has a token of the whole image already.")
        self.teacher = teacher
        self.chooses = takes_stages(teacher)
        self.pooled: int = min(_POOLED, len(teacher.channels))
        token = sum(teacher.channels[-self.pooled :])
        self.channels: tuple[int, ...] = (*teacher.channels, token)
        self.strides: tuple[int, ...] = (*teacher.strides, WHOLE_IMAGE)

    def forward(self, x: Tensor, stages: list[int] | None = None) -> list[Tensor]:
        """Return the teacher's stages of images ``(B, 3, H, W)``, then the token ``(B, C, 1, 1)``.

        Args:
            x: the images.
            stages: that are read; see :class:`FeatureExtractor`. The token needs the deepest.
        """
        count = len(self.channels)
        whole_image = stages is None or count in stages
        if self.chooses and stages is not None:
            features: list[Tensor] = self.teacher(x, [count - 1] if whole_image else stages)
        else:
            features = self.teacher(x)
        if not whole_image:
            return features
        parts: list[Tensor] = []
        for stage in features[len(features) - self.pooled :]:
            mean = stage.float().mean(dim=[2, 3])
            parts.append(F.layer_norm(mean, [mean.shape[1]]))
        features.append(torch.cat(parts, dim=1)[:, :, None, None])
        return features
