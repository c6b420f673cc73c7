"""The contract that every teacher and every student backbone fulfils, and its stages by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from multiad_med.utils.errors import InputError

__all__ = ["TOKEN", "WHOLE_IMAGE", "FeatureExtractor", "stage_numbers", "takes_stages"]

WHOLE_IMAGE = 0
"""Stride of a stage ``(B, C, 1, 1)`` that says one thing of the whole image, as a class token does."""

TOKEN = "token"
"""Name of such a stage."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """A module that turns a normalised image into one feature map per stage.

    Attributes:
        channels: feature channels of each stage, shallow to deep.
        strides: pixels of the input per feature location of each stage; 0 of a stage that is one location
            for the whole image.

    Calling it with an image ``(B, 3, H, W)`` returns a list with one feature map
    ``(B, channels[i], H / strides[i], W / strides[i])`` per stage, or ``(B, channels[i], 1, 1)`` where
    the stride is 0. A vision transformer rounds sides up to whole patches. A list, not a tuple of
    unknown length, because TorchScript knows no such tuple.

    One whose ``forward`` takes ``stages`` too, numbers counted from 1, computes no others. Its list then
    ends with the deepest of them; a stage before that which it leaves out is an empty tensor.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, x: Tensor) -> list[Tensor]: ...


def takes_stages(module: Any) -> bool:
    """Return whether an extractor, or a student, can be told which stages are read."""
    return "stages" in inspect.signature(module.forward).parameters


def stage_numbers(stages: Sequence[int | str], strides: Sequence[int]) -> tuple[int, ...]:
    """Turn names of stages into their numbers, counted from 1.

    Args:
        stages: names such as ``stride8`` and ``token``; numbers stay as they are.
        strides: of the extractor's stages, shallow to deep. A stride that several stages share names
            none of them.

    Raises:
        InputError: on a name that the extractor has not.
    """
    stages = [stages] if isinstance(stages, str) else stages
    strides = list(strides)
    names = {
        f"stride{s}" if s != WHOLE_IMAGE else TOKEN: i
        for i, s in enumerate(strides, start=1)
        if strides.count(s) == 1
    }
    for stage in stages:
        if isinstance(stage, str) and stage not in names:
            raise InputError(
                f"No stage has the name {stage!r}; choose from {list(names)}, or numbers from 1 to "
                f"{len(strides)} (strides {strides})."
            )
    return tuple(names[stage] if isinstance(stage, str) else stage for stage in stages)
