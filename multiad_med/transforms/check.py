"""Checks of volumes and masks: what is not usable is refused with a reason."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey

from multiad_med.transforms.memory_order import as_stored
from multiad_med.utils.errors import MultiADError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["CheckMaskGridd", "CheckVolume", "CheckVolumed", "VolumeError"]

_logger = logging.getLogger(__name__)

_AIR_HU = -500  # air is near -1000; what is partly air is still far below fat


class VolumeError(MultiADError, ValueError):
    """A file was read, but is not a volume that can be used."""


def _name(image: Any) -> str:
    return (
        str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, ""))
        if isinstance(image, MetaTensor)
        else ""
    )


class CheckVolume(Transform):
    """Refuse what is not a finite, non-constant 3D volume with the expected number of channels.

    A single slice ``(1, X, Y, 1)`` passes. A fourth dimension (time, echoes, diffusion directions)
    or colour arrives as several channels and is refused, because no choice among them is obvious.

    Args:
        channels: one, or the number of MR sequences that were read as channels.
        refuse_ct: whether values like those of air in HU, which no MR has, are refused too.
    """

    def __init__(self, *, channels: int = 1, refuse_ct: bool = False) -> None:
        self.channels = channels
        self.refuse_ct = refuse_ct

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return a volume ``(channels, X, Y, Z)`` unchanged.

        Raises:
            VolumeError: when it has other dimensions, several channels, no voxels, values that are
                not finite, one value only, or those of a CT; the message names the file.
        """
        source = f"{_name(image) or 'The volume'}: "
        if image.ndim != 4:
            raise VolumeError(
                f"{source}expected a 3D volume (channel, x, y, z), got shape {tuple(image.shape)}."
            )
        if image.shape[0] != self.channels:
            wanted = "one channel" if self.channels == 1 else f"{self.channels} channels"
            raise VolumeError(
                f"{source}expected {wanted}, got {image.shape[0]} (a 4D series or colour). Save the "
                "time point, echo or channel to be used as a 3D volume of its own."
            )
        if 0 in image.shape:
            raise VolumeError(f"{source}the volume is empty: shape {tuple(image.shape[1:])}.")
        plain = plain_tensor(image)
        bad = 0
        if plain.is_floating_point():
            bad = plain.numel() - int(torch.isfinite(as_stored(plain)).sum())
        if bad:
            raise VolumeError(
                f"{source}{bad} voxels are NaN or infinite. Repair them before use; no value is invented."
            )
        for index, channel in enumerate(plain):
            low, high = (float(v) for v in as_stored(channel).aminmax())
            if low == high:
                which = f" of channel {index}" if self.channels > 1 else ""
                raise VolumeError(
                    f"{source}every voxel{which} has the value {low:g}; the volume shows nothing."
                )
            if self.refuse_ct and low <= _AIR_HU:
                raise VolumeError(
                    f"{source}values down to {low:g}, as of a CT in HU, where MR is expected. Use a "
                    "model for CT. If it is MR, set its background to 0."
                )
        return image


class CheckVolumed(MapTransform):
    """Dictionary form of :class:`CheckVolume`."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        channels: int = 1,
        refuse_ct: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckVolume(channels=channels, refuse_ct=refuse_ct)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each key's volume ``(channels, X, Y, Z)``."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.check(result[key])
        return result


class CheckMaskGridd(MapTransform):
    """Refuse a mask that lies on another grid than its image; nothing is resampled silently.

    A warning names a lesion mask that marks every voxel, or none in an item that is ``anomalous``.

    Args:
        keys: masks, checked where present.
        image_key: the image whose shape and affine they must have.
        tolerance: largest difference of an affine's entries, in mm.
        lesion_key: the lesion mask.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        image_key: str = "image",
        tolerance: float = 1e-3,
        lesion_key: str = "label",
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key
        self.tolerance = tolerance
        self.lesion_key = lesion_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check each mask ``(1, X, Y, Z)``.

        Raises:
            VolumeError: when shape or affine differ; the message names the difference.
        """
        image = data[self.image_key]
        for key in self.key_iterator(dict(data)):
            mask = data[key]
            if mask.shape[1:] != image.shape[1:]:
                raise VolumeError(
                    f"{_name(mask) or key}: shape {tuple(mask.shape[1:])} differs from its image's "
                    f"{tuple(image.shape[1:])}. Resample the mask to the image's grid."
                )
            difference = float(np.abs(np.asarray(mask.affine) - np.asarray(image.affine)).max())
            if difference > self.tolerance:
                raise VolumeError(
                    f"{_name(mask) or key}: its affine differs from its image's by up to "
                    f"{difference:g} mm. Resample the mask to the image's grid."
                )
            if key == self.lesion_key:
                _warn_on_extent(mask, anomalous=bool(data.get("anomalous")))
        return dict(data)


def _warn_on_extent(mask: torch.Tensor, *, anomalous: bool) -> None:
    marked = np.count_nonzero(as_stored(mask).numpy(force=True) > 0)
    if marked == mask.numel():
        _logger.warning("%s: this lesion mask marks every voxel of its image.", _name(mask))
    elif not marked and anomalous:
        _logger.warning("%s: the mask of an anomalous image marks nothing.", _name(mask))
