"""Fit every axial slice into a square of the network's size, aspect kept, depth untouched."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import InvertibleTransform, MapTransform, Resize, SpatialPad
from monai.utils import InterpolateMode, ensure_tuple_rep

__all__ = ["FitInPlane", "FitInPlaned"]


class FitInPlane(InvertibleTransform):
    """Resize the first two spatial axes until the longer side fills ``size``, then pad to a square.

    The aspect is kept in millimetres: pixels that are not square become square. The third axis
    keeps its voxels. MONAI's ``Resize`` and ``SpatialPad`` do the work, and their inverses, with
    the same interpolation, bring a map back to the grid that came in.

    Args:
        size: side of the square in pixels.
        mode: ``trilinear`` for images (it acts in-plane only, since the depth is unchanged) or
            ``nearest`` for masks.
    """

    def __init__(self, size: int = 256, *, mode: InterpolateMode | str = "trilinear") -> None:
        if size < 1:
            raise ValueError(f"size must be a positive number of pixels, got {size}.")
        self.size = size
        self.mode = mode
        self.pad = SpatialPad((size, size, -1), mode="constant")

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Fit ``(C, X, Y, Z)`` into ``(C, size, size, Z)``; the padding is 0."""
        spacing = affine_to_spacing(image.affine) if isinstance(image, MetaTensor) else np.ones(3)
        extent = [float(image.shape[i + 1] * spacing[i]) for i in (0, 1)]
        pixel = max(extent) / self.size
        shape = [max(1, round(e / pixel)) for e in extent]
        shrinks = any(new < old for new, old in zip(shape, image.shape[1:3], strict=True))
        resize = Resize(
            (*shape, image.shape[3]),
            mode=self.mode,
            anti_aliasing=shrinks and self.mode != "nearest",
        )
        return self.pad(resize(image))

    def inverse(self, image: MetaTensor) -> torch.Tensor:
        """Undo the fit on a map ``(C, size, size, Z)`` that carries the forward trace."""
        image = self.pad.inverse(image)
        resize = Resize((-1, -1, -1))
        # Each call made its own Resize, of which only the trace is left: identities cannot match.
        return resize.inverse_transform(image, resize.pop_transform(image, check=False))


class FitInPlaned(MapTransform, InvertibleTransform):
    """Dictionary form of :class:`FitInPlane`.

    Args:
        keys: volumes to fit.
        size: side of the square in pixels.
        mode: interpolation, one for all keys or one for each.
        allow_missing_keys: whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: int = 256,
        mode: Sequence[str] | str = "trilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fits = [FitInPlane(size, mode=m) for m in ensure_tuple_rep(mode, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fit each key's volume."""
        result = dict(data)
        for key, fit in self.key_iterator(result, self.fits):
            result[key] = fit(result[key])
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring each key's volume back to the grid that came in."""
        result = dict(data)
        for key, fit in self.key_iterator(result, self.fits):
            result[key] = fit.inverse(result[key])
        return result
