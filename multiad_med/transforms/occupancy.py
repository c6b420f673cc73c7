"""Which slices of a study count: decided once, and kept in the image's metadata."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from multiad_med.transforms.foreground import occupied_slices
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["MarkOccupiedd", "marked_slices"]

OCCUPIED = "occupied"
"""Key of the answer in an image's metadata."""


class MarkOccupiedd(MapTransform):
    """Decide which slices of a study count, by :func:`multiad_med.transforms.occupied_slices`.

    Training, inference, scoring and evaluation read the answer with :func:`marked_slices`. The mask
    decides, never the image: tissue that a window turns black counts.

    Args:
        keys: the prepared image ``(C, H, W, Z)``, one key.
        mask_key: foreground ``(1, H, W, Z)``.
        min_fraction: of the largest slice's foreground that a slice must have, in [0, 1].
    """

    def __init__(
        self, keys: KeysCollection, *, mask_key: str = "foreground", min_fraction: float = 0.1
    ) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.min_fraction = min_fraction

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the answer ``(Z,)`` into the image's metadata.

        Raises:
            InputError: when no slice counts.
        """
        result = dict(data)
        key = self.first_key(result)
        mask = plain_tensor(result[self.mask_key])
        occupied = occupied_slices(mask, min_fraction=self.min_fraction)
        if not occupied.any():
            raise InputError(
                "No slice of the study has foreground, so that none can be scored. Check the image, "
                "and the organ mask if there is one."
            )
        image = MetaTensor(result[key])
        if isinstance(result[key], MetaTensor):
            image.copy_meta_from(result[key])
        image.meta[OCCUPIED] = occupied.to(torch.uint8)
        result[key] = image
        return result


def marked_slices(image: Tensor) -> Tensor:
    """Return which slices of an image count, ``(Z,)`` booleans; all if it was never marked.

    Args:
        image: ``(..., Z)``, as :class:`MarkOccupiedd` left it; for a batch, those that count in any.
    """
    mark = image.meta.get(OCCUPIED) if isinstance(image, MetaTensor) else None
    if mark is None:
        return torch.ones(image.shape[-1], dtype=torch.bool)
    mark = plain_tensor(mark).cpu() > 0
    return mark.reshape(-1, mark.shape[-1]).any(dim=0)
