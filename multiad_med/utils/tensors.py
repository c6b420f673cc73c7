"""Tensors without MONAI's metadata."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["plain_tensor"]


def plain_tensor(values: Any) -> torch.Tensor:
    """Return values as a plain tensor, a view of their memory where they are a tensor already.

    Arithmetic on a ``MetaTensor`` copies its metadata at every step.
    """
    return torch.as_tensor(values).as_subclass(torch.Tensor)
