"""The contract that every teacher and every student backbone fulfils."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["FeatureExtractor"]


@runtime_checkable
class FeatureExtractor(Protocol):
    """A module that turns a normalised image into one feature map per stage.

    Attributes:
        channels: feature channels of each stage, shallow to deep.
        strides: pixels of the input per feature location of each stage.

    Calling it with an image ``(B, 3, H, W)`` returns a list with one feature map
    ``(B, channels[i], H / strides[i], W / strides[i])`` per stage. A list, not a tuple of unknown
    length, because TorchScript knows no such tuple.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, x: Tensor) -> list[Tensor]: ...
