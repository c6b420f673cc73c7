"""VGG-16 and VGG-19 feature extractors with torchvision's state-dict keys: MKD's teacher.

Written here because torchvision is an optional package that does not import beside every build of
torch.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.squeeze_excitation import IdentityStartSELayer
from multiad_med.utils.errors import InputError

__all__ = ["VGGS", "VGGFeatures"]

VGGS: dict[str, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Supported architectures: convolutions of each block (Simonyan and Zisserman, ICLR 2015, D and E)."""

_CHANNELS = (64, 128, 256, 512, 512)


class _BlockEnd(nn.Module):
    """The max pooling that ends a block, after SE."""

    def __init__(self, channels: int, *, se: bool) -> None:
        super().__init__()
        self.se = IdentityStartSELayer(channels) if se else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.se(x), 2)


class VGGFeatures(nn.Module):
    """A VGG without its classifier that returns the features of its last four blocks.

    The features are the outputs of the max pooling that ends a block, as in Multiresolution Knowledge
    Distillation (Salehi et al., CVPR 2021), at strides 4, 8, 16 and 32. State-dict keys are
    torchvision's (``features.0.weight`` ...); SE adds keys ``features.N.se.*``.

    Args:
        architecture: a key of :data:`VGGS`.
        se: squeeze-and-excitation (Eq. 2-4) at the end of every block, identity at the start.

    Raises:
        InputError: on an unknown architecture.
    """

    def __init__(self, architecture: str = "vgg16", *, se: bool = False) -> None:
        super().__init__()
        if architecture not in VGGS:
            raise InputError(f"Unknown VGG {architecture!r}; choose one of {list(VGGS)}.")
        self.channels: tuple[int, ...] = _CHANNELS[1:]
        self.strides: tuple[int, ...] = (4, 8, 16, 32)
        layers: list[nn.Module] = []
        ends: list[int] = []
        in_channels = 3
        for convolutions, channels in zip(VGGS[architecture], _CHANNELS, strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
                in_channels = channels
            ends.append(len(layers))
            layers.append(_BlockEnd(channels, se=se))
        self.ends = ends[1:]
        self.features = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, stages: list[int] | None = None) -> list[Tensor]:
        """Stage features, shallow to deep, of an ImageNet-normalised image ``(B, 3, H, W)``.

        Args:
            x: the image.
            stages: that are read; those deeper than all of them are not computed.
        """
        last = self.ends[-1 if stages is None else max(stages) - 1]
        features: list[Tensor] = []
        for index, layer in enumerate(self.features):
            if index <= last:
                x = layer(x)
                if index in self.ends:
                    features.append(x)
        return features
