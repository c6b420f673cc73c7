"""Networks that cost nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multiad_med.networks import DinoFeatures, ImageStudent, MultiAD, VisionTransformerSize

__all__ = ["TinyFeatures", "tiny_dino", "tiny_multiad"]


class TinyFeatures(nn.Module):
    """A feature extractor of four stages, one convolution each."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (4, 6, 8, 10)
        self.strides = (4, 8, 16, 32)
        self.stem = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1)
            for a, b in zip(self.channels, self.channels[1:], strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [torch.tanh(self.norm(self.stem(x)))]
        for stage in self.stages:
            features.append(torch.tanh(stage(features[-1])))
        return features


def tiny_multiad(**kwargs: Any) -> MultiAD:
    """Return a Multi-AD with tiny extractors."""
    return MultiAD(TinyFeatures(), ImageStudent(TinyFeatures()), **kwargs)


def tiny_dino(*, registers: int = 4, recentred: bool = True) -> DinoFeatures:
    """Return a vision transformer of 32 channels and four blocks, in evaluation mode."""
    size = VisionTransformerSize(dim=32, depth=4, heads=2, registers=registers, grid=4)
    return DinoFeatures(size, recentred=recentred).eval()
