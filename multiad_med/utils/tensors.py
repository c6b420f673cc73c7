"""Tensors without MONAI's metadata."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["plain_tensor"]


def plain_tensor(values: Any) -> torch.Tensor:
    """Return the values as a plain tensor, of whose memory it is a view where they are one.

    Arithmetic on a ``MetaTensor`` copies its metadata at every step.
    """
    return torch.as_tensor(values).as_subclass(torch.Tensor)
