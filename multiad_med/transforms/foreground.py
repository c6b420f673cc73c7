"""Where the patient is: a foreground mask by a stated rule, and the slices that show anything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type
from scipy.ndimage import binary_fill_holes

__all__ = ["ForegroundByIntensity", "ForegroundByIntensityd", "occupied_slices"]


def occupied_slices(mask: torch.Tensor, *, min_fraction: float = 0.1) -> torch.Tensor:
    """Which axial slices show enough foreground to be worth a look.

    The rule: a slice is occupied when its foreground area is at least ``min_fraction`` of the
    largest slice's. It depends neither on resolution nor on the field of view.

    Args:
        mask: ``(C, X, Y, Z)``; a voxel is foreground where any channel is positive.
        min_fraction: in [0, 1].

    Returns:
        Booleans ``(Z,)``; all false where there is no foreground at all.
    """
    area = (mask > 0).any(dim=0).sum(dim=(0, 1))
    return (area > 0) & (area >= min_fraction * area.max())


class ForegroundByIntensity(Transform):
    """Foreground of an MR volume: brighter than the background, with holes filled slice by slice.

    The rule is that of FSL's BET: with p2 and p98 the 2 % and 98 % quantiles of all voxels, a voxel
    is foreground above ``p2 + level * (p98 - p2)``. It serves skull-stripped volumes (any constant
    background, zero or not) and whole heads in air. Holes are filled in each axial slice, so that
    dark tissue within the head, such as a cavity, belongs to it. Where almost everything is
    background and p98 equals p2, the maximum takes the place of p98.

    Args:
        level: fraction of the robust range.
    """

    def __init__(self, *, level: float = 0.1) -> None:
        self.level = level

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Mask ``(1, X, Y, Z)``, uint8 in {0, 1}, of a volume ``(1, X, Y, Z)``, last axis axial."""
        values = torch.as_tensor(image).float().flatten()
        ranks = [max(1, round(q * values.numel())) for q in (0.02, 0.98)]
        low, high = (float(values.kthvalue(rank).values) for rank in ranks)
        if high <= low:
            high = float(values.max())
        mask = torch.as_tensor(image)[0] > low + self.level * (high - low)
        filled = torch.stack(
            [torch.from_numpy(binary_fill_holes(s.numpy(force=True))) for s in mask.unbind(dim=-1)],
            dim=-1,
        )
        return convert_to_dst_type(filled[None].to(torch.uint8), image, dtype=torch.uint8)[0]


class ForegroundByIntensityd(MapTransform):
    """Dictionary form of :class:`ForegroundByIntensity`; the mask goes to a key of its own.

    Args:
        keys: the image, one key.
        mask_key: where the mask goes.
        level: see :class:`ForegroundByIntensity`.
    """

    def __init__(
        self, keys: KeysCollection, *, mask_key: str = "foreground", level: float = 0.1
    ) -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise ValueError(f"ForegroundByIntensityd takes one key, got {self.keys}.")
        self.mask_key = mask_key
        self.foreground = ForegroundByIntensity(level=level)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask ``(1, X, Y, Z)`` of the image."""
        return {**data, self.mask_key: self.foreground(data[self.keys[0]])}
