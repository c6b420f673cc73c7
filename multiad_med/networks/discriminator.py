"""The discriminator of teacher and student features (paper section 3.3) and its fused input (Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = ["DiscriminatorInput", "FeatureDiscriminator", "FeatureFusion"]


class DiscriminatorInput(StrEnum):
    """Which features the discriminator sees."""

    DEEPEST = "deepest"
    """The last stage alone."""
    FUSED = "fused"
    """The last two stages, fused by Eq. 5."""


class FeatureFusion(nn.Module):
    """Fuses a lower and an upper feature map: ``ReLU(BN(conv1x1([low, up])))`` (paper Eq. 5).

    Args:
        low_channels: channels of the finer map ``(B, low_channels, h, w)``.
        up_channels: channels of the coarser map, which is brought to (h, w) bilinearly.
        out_channels: channels of the result.
    """

    def __init__(self, low_channels: int, up_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(low_channels + up_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, low: Tensor, up: Tensor) -> Tensor:
        """Fuse ``low (B, C_low, h, w)`` and ``up (B, C_up, h', w')`` into ``(B, out_channels, h, w)``."""
        up = F.interpolate(up, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return F.relu(self.norm(self.conv(torch.cat([low, up], dim=1))))


class FeatureDiscriminator(nn.Module):
    """Tells teacher features (real) from student features (fake), paper section 3.3 and Eq. 9.

    Four 3x3 convolutions (stride 1, padding 1; 128, 256, 512, 1024 filters), each with batch norm
    and LeakyReLU, then dropout and a fully connected layer. It returns logits, because sigmoid and
    cross-entropy in one step stay finite where D is certain. Its input is L2-normalised per
    location, as Algorithm 1 (line 6) normalises what is distilled, so that D cannot win by
    magnitude alone.

    Args:
        channels: channels of the stages that the network distils, shallow to deep.
        source: see :class:`DiscriminatorInput`.
        input_size: features with more locations a side are averaged down to this many first. D's
            cost is that of its 3x3 convolutions per location, which on fine stages exceeds the
            cost of everything else.
        flatten_size: (h, w) of D's input. Given, the features are flattened before the fully
            connected layer, the paper's letter; by default they are averaged over locations, so
            that any image size works.
        dropout: probability of the dropout layer (the paper names no value).
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        source: DiscriminatorInput | str = DiscriminatorInput.DEEPEST,
        input_size: int | None = None,
        flatten_size: tuple[int, int] | None = None,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.source = choose(DiscriminatorInput, source, what="source")
        self.input_size = input_size
        in_channels = channels[-1]
        if self.source is DiscriminatorInput.FUSED:
            if len(channels) < 2:
                raise InputError(f"A fused input needs two stages, got channels={tuple(channels)}.")
            self.fusion = FeatureFusion(channels[-2], channels[-1], in_channels)
        layers: list[nn.Module] = []
        for width in (128, 256, 512, 1024):
            layers += [
                nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            in_channels = width
        layers.append(nn.AdaptiveAvgPool2d(1) if flatten_size is None else nn.Identity())
        locations = 1 if flatten_size is None else flatten_size[0] * flatten_size[1]
        layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(in_channels * locations, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits ``(B, 1)``, positive for "teacher", of the distilled stages' features."""
        x = F.normalize(features[-1], dim=1)
        if self.source is DiscriminatorInput.FUSED:
            x = self.fusion(F.normalize(features[-2], dim=1), x)
        if self.input_size is not None and max(x.shape[-2:]) > self.input_size:
            x = F.adaptive_avg_pool2d(x, self.input_size)
        return self.layers(x)
