"""A user's own transform between a bundle's preparation and its network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from multiad_med.transforms.memory_order import with_meta_of
from multiad_med.utils.dotted_name import locate_class
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["PluggedTransformd"]

_ROUNDING = 1e-4


class PluggedTransformd(MapTransform):
    """Apply a user's own transform, if there is one, to prepared images.

    The model's card names it, so that inference uses what training used.

    Args:
        keys: images ``(C, X, Y, Z)`` in [0, 1].
        transform: dotted name of a subclass of MONAI's ``Transform``, built without arguments. Called
            with an image it returns one of the same shape in [0, 1].

    Raises:
        InputError: when there is no such class.
    """

    def __init__(self, keys: KeysCollection, transform: str | None) -> None:
        super().__init__(keys)
        self.name = transform
        self.transform: Any = None
        if transform is not None:
            kind = locate_class(transform, Transform, what="transform")  # type: ignore[type-abstract]
            self.transform = kind()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform each key's image.

        Raises:
            InputError: when what comes back has another shape, or values outside [0, 1].
        """
        result = dict(data)
        if self.transform is None:
            return result
        for key in self.key_iterator(result):
            image = plain_tensor(result[key])
            changed = plain_tensor(self.transform(image)).float()
            if changed.shape != image.shape:
                raise InputError(
                    f"transform {self.name}: it makes {tuple(changed.shape)} of an image "
                    f"{tuple(image.shape)}; the shape must stay."
                )
            low, high = float(changed.min()), float(changed.max())
            if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:
                raise InputError(
                    f"transform {self.name}: its values lie in [{low:g}, {high:g}]; they must stay in "
                    "[0, 1]."
                )
            result[key] = with_meta_of(changed.clamp(0, 1), result[key])
        return result
