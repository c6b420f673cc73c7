"""Brightness made equal, or varied in training, so that it alone is no sign of a defect."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from multiad_med.transforms.memory_order import with_meta_of
from multiad_med.transforms.nuisance import NuisanceChange
from multiad_med.transforms.quantiles import quantiles
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["NormaliseBrightness", "NormaliseBrightnessd", "RandBrightnessd"]


class NormaliseBrightness(Transform):
    """Scale an image so that the median of its grey values is the same in every image.

    All channels are scaled by one factor, which keeps colours, and the result is clipped to 1.
    It removes differences in light, and also defects that change the brightness of the whole image.
    An image whose median is 0, more than half black, stays as it is. Do not use it where dark
    background fills about half of the images: the median is then of the background in some and of the
    product in others.

    Args:
        median: what the foreground's median becomes, in (0, 1].
    """

    def __init__(self, *, median: float = 0.7) -> None:
        if not 0 < median <= 1:
            raise InputError(f"median must lie in (0, 1], got {median}.")
        self.median = median

    def __call__(self, image: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Scale ``(C, H, W, N)`` in [0, 1] by the pixels in ``mask (1, H, W, N)``, or by all."""
        plain = plain_tensor(image)
        grey = plain.mean(dim=0, keepdim=True)
        if mask is not None:
            grey = grey[plain_tensor(mask) > 0]
        (found,) = quantiles(grey, (0.5,))
        factor = self.median / found if found > 0 else 1.0
        return with_meta_of((plain * factor).clamp(max=1), image)


class NormaliseBrightnessd(MapTransform):
    """Dictionary form of :class:`NormaliseBrightness`.

    Args:
        keys: images to scale.
        mask_key: their foreground; where an item has none, the whole image counts.
        median: see :class:`NormaliseBrightness`.
    """

    def __init__(
        self, keys: KeysCollection, *, mask_key: str = "foreground", median: float = 0.7
    ) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.normalise = NormaliseBrightness(median=median)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale each key's image ``(C, H, W, N)``."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.normalise(result[key], result.get(self.mask_key))
        return result


class RandBrightnessd(MapTransform):
    """Change a slice's brightness at random, by a gain of 0.9 to 1.1 and a gamma of 0.9 to 1.1.

    For training images. It draws from torch's global generator, which
    :class:`multiad_med.training.EpochSeedHandler` seeds at every epoch; the state of MONAI's random
    transforms would not survive a resumed training.

    Args:
        keys: slices to change; each draws for itself.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change each key's slice ``(C, H, W)`` in [0, 1]."""
        result = dict(data)
        for key in self.key_iterator(result):
            plain = plain_tensor(result[key])
            result[key] = NuisanceChange.draw_light().image(plain)
        return result
