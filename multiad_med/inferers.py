"""A volume's axial slices through a 2D network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SliceInferer
from torch import Tensor

from multiad_med.transforms import occupied_slices

__all__ = ["AxialInferer"]


class AxialInferer(SliceInferer):
    """MONAI's ``SliceInferer`` over the occupied axial slices; the map of the others is 0.

    Axial is the last axis of a volume in RAS+ ``(B, C, X, Y, Z)``.

    Args:
        sw_batch_size: slices per forward pass.
        min_fraction: see :func:`multiad_med.transforms.occupied_slices`.
        kwargs: further arguments of ``SliceInferer``.
    """

    def __init__(
        self, *, sw_batch_size: int = 16, min_fraction: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(spatial_dim=2, roi_size=(-1, -1), sw_batch_size=sw_batch_size, **kwargs)
        self.min_fraction = min_fraction

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Map ``(B, 1, X, Y, Z)`` of a volume ``(B, C, X, Y, Z)`` in [0, 1]."""
        occupied = torch.stack(
            [occupied_slices(volume, min_fraction=self.min_fraction) for volume in inputs]
        ).any(dim=0)
        result = inputs.new_zeros((inputs.shape[0], 1, *inputs.shape[2:]))
        if occupied.any():
            result[..., occupied] = super().__call__(  # type: ignore[assignment]
                inputs[..., occupied], network, *args, **kwargs
            )
        return result
