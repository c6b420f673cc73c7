"""A student that decodes the teacher's features from behind a bottleneck (reverse distillation).

The paper's student reads the image with the teacher's own architecture, and so imitates the teacher
on lesions too, the better the longer it trains. A student that sees the teacher's features through
a narrow bottleneck can only return what normal images taught it to (Deng and Li, Anomaly Detection
via Reverse Distillation, CVPR 2022). docs/decisions.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.squeeze_excitation import IdentityStartSELayer
from multiad_med.utils.errors import InputError

__all__ = ["DecoderStudent"]

# Widths of the stages, shallow to deep, as multiples of the base width.
_WIDTHS = (1.0, 1.5, 2.5, 3.0)


def _conv(
    in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class _Bottleneck(nn.Module):
    """Brings every stage to the deepest one's resolution and squeezes them into a few channels."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, width: int, dropout: float
    ) -> None:
        super().__init__()
        reductions: list[nn.Module] = []
        for stage_channels, stride in zip(channels[:-1], strides[:-1], strict=True):
            steps: list[nn.Module] = []
            in_channels = stage_channels
            for _ in range(round(log2(strides[-1] / stride))):
                out_channels = min(2 * in_channels, width // 2)
                steps.append(_conv(in_channels, out_channels, stride=2))
                in_channels = out_channels
            steps.append(_conv(in_channels, width // 2, kernel=1))
            reductions.append(nn.Sequential(*steps))
        self.reductions = nn.ModuleList(reductions)
        merged = len(reductions) * (width // 2) + channels[-1]
        self.squeeze = nn.Sequential(
            _conv(merged, width, kernel=1), nn.Dropout(dropout), _conv(width, width)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[-1].shape[-2:]
        parts: list[Tensor] = []
        for i, reduction in enumerate(self.reductions):
            part = reduction(features[i])
            if part.shape[-2:] != size:
                part = F.interpolate(part, size=size, mode="bilinear", align_corners=False)
            parts.append(part)
        parts.append(features[-1])
        return self.squeeze(torch.cat(parts, dim=1))


class _DecoderBlock(nn.Module):
    """One stage up: resize, then a residual pair of 3x3 convolutions, with optional SE."""

    def __init__(self, in_channels: int, out_channels: int, *, se: bool) -> None:
        super().__init__()
        self.enter = _conv(in_channels, out_channels)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.se = IdentityStartSELayer(out_channels) if se else nn.Identity()

    def forward(self, x: Tensor, size: list[int]) -> Tensor:
        x = self.enter(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
        return F.relu(x + self.se(self.norm(self.conv(x))))


class DecoderStudent(nn.Module):
    """Reconstructs the teacher's stage features from a bottleneck over all of them.

    Args:
        channels: channels of the teacher's stages, shallow to deep.
        strides: their strides.
        base_width: width of the finest decoder stage; the bottleneck has three times as many.
        se: squeeze-and-excitation (Eq. 2-4) in the decoder's blocks, identity at the start.
        dropout: probability of the bottleneck's dropout in training.

    Raises:
        InputError: when the teacher has fewer than two or more than four stages.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        base_width: int = 64,
        se: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not 2 <= len(channels) <= len(_WIDTHS):
            raise InputError(
                f"The decoder needs a teacher of 2 to {len(_WIDTHS)} stages, got {len(channels)}; "
                "give a student of your own."
            )
        widths = [int(base_width * factor) for factor in _WIDTHS[-len(channels) :]]
        self.bottleneck = _Bottleneck(channels, strides, width=widths[-1], dropout=dropout)
        # Deep to shallow, the order in which they run.
        self.blocks = nn.ModuleList(
            _DecoderBlock(widths[i + 1], widths[i], se=se) for i in reversed(range(len(widths) - 1))
        )
        self.reads: list[int] = list(range(1, len(channels) + 1))
        self.heads = nn.ModuleList(
            nn.Conv2d(width, stage, 1)
            for width, stage in zip(reversed(widths), reversed(channels), strict=True)
        )

    def forward(
        self, image: Tensor, teacher_features: list[Tensor], stages: list[int] | None = None
    ) -> list[Tensor]:
        """Return features of the teacher's shapes; the image is not looked at.

        Args:
            image: ``(B, 3, H, W)``.
            teacher_features: ``(B, channels[i], h_i, w_i)``, without gradients; those of further stages
                are not looked at.
            stages: that are read; see :class:`multiad_med.networks.FeatureExtractor`.
        """
        count = len(self.reads)
        wanted = self.reads if stages is None else stages
        x = self.bottleneck(teacher_features[:count])
        decoded = [x]
        for i, block in enumerate(self.blocks):
            stage = count - 1 - i
            if stage >= min(wanted):
                shape = teacher_features[stage - 1].shape
                x = block(x, [shape[2], shape[3]])
                decoded.append(x)
        features: list[Tensor] = []
        for i, head in enumerate(self.heads):
            read = count - i in wanted
            features.append(head(decoded[i]) if read else x.new_zeros([len(x), 0, 1, 1]))
        features.reverse()
        return features
