"""Squeeze-and-excitation that starts as the identity (paper section 3.1, Eq. 2-4)."""

from __future__ import annotations

from monai.networks.blocks import ChannelSELayer
from torch import Tensor, nn

__all__ = ["IdentityStartSELayer"]


class _Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x


class IdentityStartSELayer(ChannelSELayer):
    """MONAI's ``ChannelSELayer`` whose gate is ``2 * sigmoid(...)`` with a zero-initialised last layer.

    The gate (Eq. 3) is then exactly 1 for every channel before training, so that adding the layer
    to a network leaves its features unchanged until something is learned. A plain sigmoid gate
    starts at about 0.5 and halves the residual branch in every block.

    Args:
        in_channels: channels of the feature map.
        reduction: the squeeze ratio r; at least one hidden channel is kept.
    """

    def __init__(self, in_channels: int, *, reduction: int = 16) -> None:
        super().__init__(spatial_dims=2, in_channels=in_channels, r=min(reduction, in_channels))
        for parameter in self.fc[2].parameters():
            nn.init.zeros_(parameter)
        self.fc.append(_Double())
