"""Squeeze and excitation: Eq. 2-4 of the paper by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from multiad_med.networks.squeeze_excitation import IdentityStartSELayer


def test_each_channel_is_scaled_by_the_gate_of_all_channels_means() -> None:
    layer = IdentityStartSELayer(4, reduction=2)
    first, second = layer.fc[0], layer.fc[2]
    torch.manual_seed(3)
    for parameter in (*first.parameters(), *second.parameters()):
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 4, 2, 3)
    with torch.no_grad():
        scaled = layer(x)

    def product(weight: Tensor, bias: Tensor, z: list[float]) -> list[float]:
        return [
            sum(w * v for w, v in zip(row, z, strict=True)) + b
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]

    z = [sum(channel) / 6 for channel in x.flatten(2)[0].tolist()]
    hidden = [max(0.0, v) for v in product(first.weight, first.bias, z)]
    assert sum(hidden) > 0
    gates = [2 / (1 + math.exp(-v)) for v in product(second.weight, second.bias, hidden)]
    for channel, gate in enumerate(gates):
        assert scaled[0, channel].tolist() == [
            pytest.approx([gate * v for v in row], abs=1e-5) for row in x[0, channel].tolist()
        ]


def test_every_gate_is_one_at_the_start() -> None:
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(IdentityStartSELayer(8)(x), x)
