"""Cut a volume to the in-plane box of a mask, the same for all its slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, SpatialCrop, Transform

from multiad_med.transforms.memory_order import as_stored
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["CropInPlane", "CropInPlaned"]


class CropInPlane(Transform):
    """Cut ``(C, X, Y, Z)`` to where a mask is, in any slice, plus a margin; the depth stays.

    MONAI's ``CropForeground`` cuts the depth too, after which a slice's number is no longer the
    volume's.

    Args:
        margin: on each side, in mm; less where the volume ends.
    """

    def __init__(self, *, margin: float = 10.0) -> None:
        self.margin = margin

    def box(self, mask: torch.Tensor) -> tuple[list[int], list[int]]:
        """Return the first voxel, and the one after the last, along the three axes.

        Raises:
            InputError: when the mask is empty.
        """
        spacing = affine_to_spacing(mask.affine) if isinstance(mask, MetaTensor) else np.ones(3)
        plain = plain_tensor(mask)
        if not as_stored(plain).numpy(force=True).any():
            raise InputError("The mask to crop to is empty.")
        flat = (plain > 0).any(dim=0).any(dim=2)
        start, end = [], []
        for axis in (0, 1):
            inside = flat.any(dim=1 - axis).nonzero().flatten()
            margin = round(self.margin / float(spacing[axis]))
            start.append(max(0, int(inside[0]) - margin))
            end.append(min(plain.shape[axis + 1], int(inside[-1]) + 1 + margin))
        return [*start, 0], [*end, plain.shape[3]]

    def __call__(  # type: ignore[override]
        self, image: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Crop a volume to the box of a mask ``(1, X, Y, Z)`` on its grid."""
        start, end = self.box(mask)
        return SpatialCrop(roi_start=start, roi_end=end)(image)


class CropInPlaned(MapTransform):
    """Dictionary form of :class:`CropInPlane`; all keys are cut to one box.

    Args:
        keys: volumes, cut where present.
        mask_key: whose box it is; cut too if it is among the keys.
        margin: in mm.
    """

    def __init__(
        self, keys: KeysCollection, *, mask_key: str = "foreground", margin: float = 10.0
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.mask_key = mask_key
        self.crop = CropInPlane(margin=margin)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop each key's volume."""
        result = dict(data)
        mask = data[self.mask_key]
        for key in self.key_iterator(dict(data)):
            result[key] = self.crop(result[key], mask)
        return result
