"""A CT shifted so that its organ has one median in every volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from multiad_med.transforms.memory_order import with_meta_of
from multiad_med.transforms.quantiles import quantiles
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["CentreHounsfield", "CentreHounsfieldd"]


class CentreHounsfield(Transform):
    """Shift HU so that the organ's median becomes a fixed value.

    Contrast agent, its phase and the scanner move a whole organ by tens of HU; lesions hardly move its
    median. Grid and geometry stay as they are.

    Args:
        centre: HU that the organ's median becomes; none leaves the volume as it is.

    Raises:
        InputError: when the centre is no number.
    """

    def __init__(self, centre: float | None) -> None:
        if centre is not None and (
            isinstance(centre, bool) or not isinstance(centre, (int, float))
        ):
            raise InputError(f"centre is a value in HU, such as 100, or null, got {centre!r}.")
        self.centre = centre

    def __call__(  # type: ignore[override]
        self, image: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Shift ``(1, X, Y, Z)`` in HU given its organ ``(1, X, Y, Z)``; float32 in HU.

        Raises:
            InputError: when the organ is empty.
        """
        if self.centre is None:
            return image
        values, inside = (plain_tensor(t) for t in (image, mask))
        (median,) = quantiles(values[inside > 0], (0.5,))
        return with_meta_of(values.float() + (self.centre - median), image)


class CentreHounsfieldd(MapTransform):
    """Dictionary form of :class:`CentreHounsfield`.

    Args:
        keys: volumes in HU.
        centre: see :class:`CentreHounsfield`.
        mask_key: mask of their organ.
    """

    def __init__(
        self, keys: KeysCollection, *, centre: float | None, mask_key: str = "foreground"
    ) -> None:
        super().__init__(keys)
        self.shift = CentreHounsfield(centre)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Shift each key's volume ``(1, X, Y, Z)``."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.shift(result[key], result[self.mask_key])
        return result
