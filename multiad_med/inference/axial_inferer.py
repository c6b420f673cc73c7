"""A volume's axial slices, or a large image's tiles, through a 2D network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.inferers import SliceInferer
from torch import Tensor

from multiad_med.transforms import TILE_OVERLAP, marked_slices
from multiad_med.utils.sizes import Size, sides
from multiad_med.utils.tensors import plain_tensor

__all__ = ["AxialInferer"]

# MONAI's 0.125 falls below its least weight where four tiles meet, so that their edges show.
_SIGMA_SCALE = 0.18


class AxialInferer(SliceInferer):
    """MONAI's ``SliceInferer`` over the axial slices that count; the map of the others is 0.

    The image's metadata say which count (:class:`multiad_med.transforms.MarkOccupiedd`); without that
    mark all do.

    Axial is the last axis of a volume in RAS+ ``(B, C, X, Y, Z)``; an image ``(B, C, H, W, 1)`` is
    a volume of one slice.

    Args:
        sw_batch_size: slices, or tiles, per forward pass.
        tile: side of the square tiles in pixels, or their rows and columns, which overlap as those of
            :class:`multiad_med.transforms.Tiles` and are blended with Gaussian weights; None means
            whole slices.
        kwargs: further arguments of ``SliceInferer``.
    """

    def __init__(
        self,
        *,
        sw_batch_size: int = 16,
        tile: Size | None = None,
        **kwargs: Any,
    ) -> None:
        if tile is not None:
            kwargs |= {
                "overlap": TILE_OVERLAP,
                "mode": "gaussian",
                "sigma_scale": _SIGMA_SCALE,
                "padding_mode": "replicate",
            }
        roi = (-1, -1) if tile is None else sides(tile, name="tile")
        super().__init__(spatial_dim=2, roi_size=roi, sw_batch_size=sw_batch_size, **kwargs)

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the network's map ``(B, 1 or 2, X, Y, Z)`` of a volume ``(B, C, X, Y, Z)`` in [0, 1].

        Of tiles, a second channel, which is of the whole image, is one of each tile, blended.
        """
        occupied = marked_slices(inputs).to(inputs.device)
        if occupied.all():
            return super().__call__(inputs, network, *args, **kwargs)  # type: ignore[return-value]
        if not occupied.any():
            return inputs.new_zeros((inputs.shape[0], 1, *inputs.shape[2:]))
        plain = plain_tensor(inputs)  # MONAI would index its metadata too
        maps: Tensor = super().__call__(  # type: ignore[assignment]
            plain[..., occupied], network, *args, **kwargs
        )
        result = inputs.new_zeros((*maps.shape[:2], *inputs.shape[2:]))
        result[..., occupied] = maps
        return result
