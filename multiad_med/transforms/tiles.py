"""A large image as the slices of a volume: overlapping tiles of one size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data.utils import dense_patch_slices
from monai.transforms import MapTransform, SpatialPad, Transform
from monai.utils import ensure_tuple_rep

from multiad_med.utils.errors import InputError
from multiad_med.utils.sizes import Size, sides
from multiad_med.utils.tensors import plain_tensor

__all__ = ["TILE_OVERLAP", "Tiles", "Tilesd"]

TILE_OVERLAP = 0.25
"""Fraction of a tile's side that it shares with its neighbour, in training and in inference."""


class Tiles(Transform):
    """Cut an image ``(C, H, W, 1)`` into the tiles that MONAI's sliding window looks at.

    Where a side is shorter than the tile the image is padded equally on both sides, as the
    sliding window does too.

    Args:
        tile: side of the square tiles in pixels, or their rows and columns.
        mode: of the padding, as in ``numpy.pad``: ``edge`` for images, ``constant`` for masks.
    """

    def __init__(self, tile: Size, *, mode: str = "edge") -> None:
        self.tile = sides(tile, name="tile")
        self.pad = SpatialPad((*self.tile, -1), mode=mode)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return tiles ``(C, *tile, N)``, row by row.

        Raises:
            InputError: when it is not a single image.
        """
        if image.ndim != 4 or image.shape[-1] != 1:
            raise InputError(
                f"Tiles are cut from one image (C, H, W, 1), got shape {tuple(image.shape)}."
            )
        padded = self.pad(plain_tensor(image))
        plain = plain_tensor(padded)[..., 0]
        # As the sliding window: a side that the tile fills is walked in one step.
        steps = [
            tile if side == tile else max(1, int(tile * (1 - TILE_OVERLAP)))
            for side, tile in zip(plain.shape[1:], self.tile, strict=True)
        ]
        places = dense_patch_slices(plain.shape[1:], self.tile, steps)
        return torch.stack([plain[(slice(None), *place)] for place in places], dim=-1)


class Tilesd(MapTransform):
    """Dictionary form of :class:`Tiles`.

    Args:
        keys: the image and its masks; absent ones are passed over.
        tile: see :class:`Tiles`.
        mode: padding, one for all keys or one for each.
    """

    def __init__(
        self, keys: KeysCollection, *, tile: Size, mode: Sequence[str] | str = "edge"
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.tiles = [Tiles(tile, mode=m) for m in ensure_tuple_rep(mode, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut each key's image."""
        result = dict(data)
        for key, tiles in self.key_iterator(result, self.tiles):
            result[key] = tiles(result[key])
        return result
