"""ResNet feature extractors with torchvision's state-dict keys (paper section 3.1).

Written here because MONAI's ResNet cannot hold ImageNet's WideResNet-50-2 weights (its
``widen_factor`` widens every convolution, not the bottleneck alone) and torchvision is an optional
package that does not import beside every build of torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from multiad_med.networks.squeeze_excitation import IdentityStartSELayer
from multiad_med.utils.errors import InputError

__all__ = ["RESNETS", "ResNetFeatures"]


@dataclass(frozen=True)
class _Architecture:
    blocks: tuple[int, int, int, int]
    bottleneck: bool
    base_width: int = 64


RESNETS: dict[str, _Architecture] = {
    "resnet18": _Architecture((2, 2, 2, 2), bottleneck=False),
    "resnet34": _Architecture((3, 4, 6, 3), bottleneck=False),
    "resnet50": _Architecture((3, 4, 6, 3), bottleneck=True),
    "wide_resnet50_2": _Architecture((3, 4, 6, 3), bottleneck=True, base_width=128),
}
"""Supported architectures: blocks per stage, block kind, and bottleneck width of the first stage."""


def _conv3x3(in_channels: int, out_channels: int, *, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _squeeze_excitation(channels: int, se: bool) -> nn.Module:
    return IdentityStartSELayer(channels) if se else nn.Identity()


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions; SE on the residual branch, before the sum (SENet, Fig. 3)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        base_width: int,
        se: bool,
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, planes, stride=stride, dilation=dilations[0])
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes, stride=1, dilation=dilations[1])
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)
        self.se = _squeeze_excitation(planes, se)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.se(self.bn2(self.conv2(out)))
        return self.relu(out + self.downsample(x))


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; SE on the residual branch, before the sum."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        base_width: int,
        se: bool,
    ) -> None:
        out_channels = planes * self.expansion
        super().__init__()
        width = planes * base_width // 64
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride=stride, dilation=dilations[0])
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)
        self.se = _squeeze_excitation(out_channels, se)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.se(self.bn3(self.conv3(out)))
        return self.relu(out + self.downsample(x))


class ResNetFeatures(nn.Module):
    """A ResNet without its classifier that returns the features of its four stages.

    State-dict keys are torchvision's (``conv1``, ``bn1``, ``layer1.0.conv1`` ...); SE adds keys
    ``layerN.M.se.*``. Dilation (Eq. 1) comes only in place of stride, a trous: a stage that keeps
    its resolution dilates its 3x3 kernels instead, so that ImageNet weights stay valid and
    features at every second location equal the strided network's.

    Args:
        architecture: a key of :data:`RESNETS`.
        output_stride: stride of the last stage: 32 (no dilation), 16, 8 or 4 (the paper's
            r = 1, 2, 4, 8 by stage).
        se: squeeze-and-excitation (Eq. 2-4) in every residual block, identity at the start.

    Raises:
        InputError: on an unknown architecture or output stride.
    """

    def __init__(
        self, architecture: str = "wide_resnet50_2", *, output_stride: int = 32, se: bool = False
    ) -> None:
        super().__init__()
        if architecture not in RESNETS:
            raise InputError(f"Unknown ResNet {architecture!r}; choose one of {sorted(RESNETS)}.")
        if output_stride not in (4, 8, 16, 32):
            raise InputError(f"output_stride must be 32, 16, 8 or 4, got {output_stride!r}.")
        spec = RESNETS[architecture]
        block = _Bottleneck if spec.bottleneck else _BasicBlock
        self.channels: tuple[int, ...] = tuple(p * block.expansion for p in (64, 128, 256, 512))
        self.strides: tuple[int, ...] = tuple(min(s, output_stride) for s in (4, 8, 16, 32))

        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels, dilation, reached = 64, 1, 4
        stages: list[nn.Sequential] = []
        for stage, count in enumerate(spec.blocks):
            stride, first_dilation = 1 if stage == 0 else 2, dilation
            if stride == 2 and reached == output_stride:
                stride, dilation = 1, dilation * 2
            reached *= stride
            blocks = []
            for index in range(count):
                out_channels = self.channels[stage]
                # The kernel that would have strided still samples the finer grid; in a basic block
                # only that first 3x3 keeps the finer dilation, the second already sees the coarser.
                own = first_dilation if index == 0 else dilation
                blocks.append(
                    block(
                        in_channels,
                        64 * 2**stage,
                        stride=stride if index == 0 else 1,
                        dilations=(own, dilation),
                        base_width=spec.base_width,
                        se=se,
                    )
                )
                in_channels = out_channels
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, stages: list[int] | None = None) -> list[Tensor]:
        """Stage features, shallow to deep, of an ImageNet-normalised image ``(B, 3, H, W)``.

        Args:
            x: the image.
            stages: that are read; those deeper than all of them are not computed.
        """
        deepest = len(self.channels) if stages is None else max(stages)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = [self.layer1(x)]
        if deepest > 1:
            features.append(self.layer2(features[-1]))
        if deepest > 2:
            features.append(self.layer3(features[-1]))
        if deepest > 3:
            features.append(self.layer4(features[-1]))
        return features
