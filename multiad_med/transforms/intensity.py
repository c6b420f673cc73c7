"""Intensities of a volume scaled to [0, 1] by a reference inside its foreground."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from multiad_med.transforms.memory_order import empty_stored, stored_order, with_meta_of
from multiad_med.transforms.padding import without_padding
from multiad_med.transforms.quantiles import quantiles
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["ScaleForegroundIntensity", "ScaleForegroundIntensityd"]


class ScaleForegroundIntensity(Transform):
    """Map a volume's intensities linearly to [0, 1] by a quantile of its foreground.

    MR has no unit, so each volume, and each of its sequences, brings its own reference: the
    background (the volume's 2 % quantile, padding apart) becomes 0, the foreground's ``quantile`` becomes
    ``target``, and the result is clipped to [0, 1]. With the median as reference a lesion, however
    bright, hardly moves the scale, and what is brighter than normal tissue keeps its contrast
    below 1.

    Args:
        quantile: quantile of the foreground voxels, in (0, 1].
        target: value that the quantile is mapped to, in (0, 1].
    """

    def __init__(self, *, quantile: float = 0.5, target: float = 0.4) -> None:
        if not 0 < quantile <= 1 or not 0 < target <= 1:
            raise InputError(
                f"quantile and target must lie in (0, 1], got {quantile} and {target}."
            )
        self.quantile = quantile
        self.target = target

    def __call__(  # type: ignore[override]
        self, image: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Scale ``(C, X, Y, Z)`` given its foreground ``(1, X, Y, Z)``; float32 in [0, 1]."""
        values = plain_tensor(image)
        order = stored_order(values[0])
        inside = plain_tensor(mask)[0].permute(order) > 0
        scaled = empty_stored(values[0], torch.float32, channels=len(values))
        for channel, target in zip(map(without_padding, values), scaled, strict=True):
            source = channel.permute(order)
            (low,) = quantiles(source, (0.02,))
            # numpy selects by a mask faster than torch.
            chosen = source.numpy(force=True)[inside.numpy(force=True)]
            (high,) = quantiles(torch.from_numpy(chosen), (self.quantile,))
            slope = self.target / (high - low) if high > low else 0.0
            torch.sub(source, low, out=target.permute(order)).mul_(slope).clamp_(0, 1)
        return with_meta_of(scaled, image)


class ScaleForegroundIntensityd(MapTransform):
    """Dictionary form of :class:`ScaleForegroundIntensity`.

    Args:
        keys: images to scale.
        mask_key: their foreground mask.
        quantile: see :class:`ScaleForegroundIntensity`.
        target: see :class:`ScaleForegroundIntensity`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        mask_key: str = "foreground",
        quantile: float = 0.5,
        target: float = 0.4,
    ) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.scale = ScaleForegroundIntensity(quantile=quantile, target=target)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale each key's volume ``(C, X, Y, Z)``."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.scale(result[key], result[self.mask_key])
        return result
