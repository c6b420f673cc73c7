"""From a volume to its axial slices: neighbours as channels, and the slice axis in front."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Orientation, Transform

from multiad_med.transforms.memory_order import with_meta_of
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["AxialSlices", "AxialSlicesd", "NeighbourSlices", "NeighbourSlicesd"]


class AxialSlices(Transform):
    """The axial slices of any volume that MONAI reads, from feet to head.

    A volume with an affine is brought to RAS first, so that slice ``z`` is axial whatever the axes
    of the file; its slices then run along x (to the patient's right) and y (to the front).

    Args:
        orient: whether to bring the volume to RAS; false for B-scans and images, whose frame is
            not the patient's.
    """

    def __init__(self, *, orient: bool = True) -> None:
        self.orientation = Orientation("RAS", labels=None) if orient else None

    def oriented(self, image: torch.Tensor) -> torch.Tensor:
        """Return the volume with the slices along its last axis."""
        if self.orientation is None or not isinstance(image, MetaTensor):
            return image
        return self.orientation(image)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the slices ``(Z, C, X, Y)`` of a volume ``(C, X, Y, Z)``.

        Raises:
            InputError: when it is no volume.
        """
        if image.ndim != 4:
            raise InputError(
                f"Axial slices are cut from a volume (C, X, Y, Z), got shape {tuple(image.shape)}."
            )
        image = plain_tensor(self.oriented(image))
        return image.permute(3, 0, 1, 2)


class AxialSlicesd(MapTransform):
    """Dictionary form of :class:`AxialSlices`.

    Args:
        keys: volumes ``(C, X, Y, Z)``.
        affine_key: where the affine ``(4, 4)`` of the first volume goes, voxel (x, y, z) to mm.
        orient: see :class:`AxialSlices`.
        allow_missing_keys: whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        affine_key: str = "affine",
        orient: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.affine_key = affine_key
        self.slices = AxialSlices(orient=orient)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut each key's volume into slices ``(Z, C, X, Y)``."""
        result = dict(data)
        for index, key in enumerate(self.key_iterator(result)):
            volume = self.slices.oriented(result[key])
            if index == 0 and isinstance(volume, MetaTensor):
                result[self.affine_key] = volume.affine.clone()
            result[key] = self.slices(volume)
        return result


class NeighbourSlices(Transform):
    """A slice and its neighbours as channels, so that a 2D network sees some depth.

    At the ends of the volume the last slice is repeated.

    Args:
        count: odd number of slices, the middle one being the slice itself.
        step: distance between neighbours, in slices.
    """

    def __init__(self, count: int = 3, *, step: int = 1) -> None:
        if count < 1 or count % 2 == 0:
            raise InputError(f"count must be odd and positive, got {count}.")
        if step < 1:
            raise InputError(f"step must be at least one slice, got {step}.")
        self.offsets = [step * (i - count // 2) for i in range(count)]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return ``(count, X, Y, Z)`` of a volume ``(1, X, Y, Z)``; channels from below to above.

        Raises:
            InputError: when the volume has several channels.
        """
        if image.ndim != 4 or image.shape[0] != 1:
            raise InputError(
                f"Neighbouring slices are taken from a volume (1, X, Y, Z), got {tuple(image.shape)}."
            )
        volume = plain_tensor(image)[0]
        position = torch.arange(volume.shape[-1])
        last = volume.shape[-1] - 1
        channels = [volume[..., (position + offset).clamp(0, last)] for offset in self.offsets]
        return with_meta_of(torch.stack(channels), image)


class NeighbourSlicesd(MapTransform):
    """Dictionary form of :class:`NeighbourSlices`."""

    def __init__(self, keys: KeysCollection, *, count: int = 3, step: int = 1) -> None:
        super().__init__(keys)
        self.neighbours = NeighbourSlices(count, step=step)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Stack each key's neighbouring slices."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.neighbours(result[key])
        return result
