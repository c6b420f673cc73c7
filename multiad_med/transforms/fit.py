"""Fit every axial slice into the network's size, aspect kept or not, depth untouched."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import InvertibleTransform, MapTransform, SpatialPad
from monai.transforms.utils import scale_affine
from monai.utils import ImageMetaKey, TraceKeys, ensure_tuple_rep
from torch.nn.functional import interpolate

from multiad_med.utils.errors import InputError
from multiad_med.utils.sizes import Size, sides
from multiad_med.utils.tensors import plain_tensor

__all__ = ["LIKE", "FitInPlane", "FitInPlaned"]

_MODES = ("bilinear", "bicubic", "nearest")
LIKE = 1.25
"""Images whose aspects differ by no more than this factor count as of one shape."""


def _resize_slices(
    volume: torch.Tensor, shape: tuple[int, int], *, mode: str, antialias: bool
) -> torch.Tensor:
    """Resize the first two spatial axes of ``(C, X, Y, Z)``, in the memory's own order."""
    plain = plain_tensor(volume)
    slices = plain.permute(3, 0, 1, 2)
    # NIfTI runs fastest along x. Turning such slices costs nothing and spares a copy.
    turned = slices.stride(2) < slices.stride(3)
    if turned:
        slices, shape = slices.transpose(2, 3), (shape[1], shape[0])
    if mode == "nearest":
        result = _nearest(slices, shape)
    else:
        result = interpolate(slices.float(), shape, mode=mode, antialias=antialias)
    if turned:
        result = result.transpose(2, 3)
    return result.permute(1, 2, 3, 0)


def _nearest(slices: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Resize the last two axes as torch's ``nearest-exact`` does, which takes twice as long."""
    array = slices.numpy(force=True)
    for axis, size in zip((3, 2), reversed(shape), strict=True):
        place = torch.arange(array.shape[axis], dtype=torch.float32)[None, None]
        nearest = interpolate(place, size, mode="nearest-exact")[0, 0]
        array = np.take(array, nearest.long().numpy(), axis=axis)
    return torch.from_numpy(array).to(slices.device)


class FitInPlane(InvertibleTransform):
    """Resize the first two spatial axes until they fill ``size`` in one of them, then pad the other.

    The aspect is kept in millimetres: pixels that are not square become square. The third axis
    keeps its voxels. Interpolation is bilinear within the slice, with an antialiasing filter where
    the slice shrinks. The inverse brings a map back to the grid that came in, with the same
    interpolation. (MONAI's ``Resize`` filters whole volumes in three dimensions;
    ``benchmarks/preparation.py`` prints what either costs.)

    Args:
        size: side of the square, or both sides of the rectangle in the order of the axes: rows and
            columns of images ``(C, H, W, 1)``, X and Y of volumes.
        mode: ``bilinear`` or ``bicubic`` for images, ``nearest`` for masks. Bicubic may leave the range
            of the image a little; its filter is Pillow's, whether the slice shrinks or grows. Its
            inverse is bilinear, so that a map stays in its range.
        keep_aspect: whether to keep the aspect; otherwise both sides fill ``size``, as is usual
            for industrial images and for OCT, whose pixels are far from square.
        aspects: least and greatest aspect, columns to rows, of the images that are expected. A
            warning names an image that is wider or narrower by more than :data:`LIKE`. None means
            no expectation.

    Raises:
        InputError: when a side is not positive, or the mode is unknown.
    """

    def __init__(
        self,
        size: Size = 256,
        *,
        mode: str = "bilinear",
        keep_aspect: bool = True,
        aspects: tuple[float, float] | None = None,
    ) -> None:
        self.size = sides(size)
        if mode not in _MODES:
            raise InputError(f"mode is one of {list(_MODES)}, got {mode!r}.")
        self.mode = mode
        self.keep_aspect = keep_aspect
        self.aspects = aspects
        self.pad = SpatialPad((*self.size, -1), mode="constant")

    def _warn_of_shape(self, image: torch.Tensor) -> None:
        if self.aspects is None or not isinstance(image, MetaTensor):
            return
        rows, columns = image.shape[1:3]
        if not self.aspects[0] / LIKE <= columns / rows <= self.aspects[1] * LIKE:
            warnings.warn(
                f"{image.meta.get(ImageMetaKey.FILENAME_OR_OBJ)}: {rows}x{columns} pixels (rows x "
                f"columns), a shape that no image of the training had. Resized to "
                f"{self.size[0]}x{self.size[1]} it is distorted, and its map may mean little.",
                stacklevel=2,
            )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Fit ``(C, X, Y, Z)`` into ``(C, *size, Z)``; the padding is 0."""
        self._warn_of_shape(image)
        spacing = affine_to_spacing(image.affine) if isinstance(image, MetaTensor) else np.ones(3)
        old = (int(image.shape[1]), int(image.shape[2]))
        extent = [float(n * s) for n, s in zip(old, spacing, strict=False)]
        pixel = max(mm / side for mm, side in zip(extent, self.size, strict=True))
        new = (max(1, round(extent[0] / pixel)), max(1, round(extent[1] / pixel)))
        if not self.keep_aspect:
            new = self.size
        antialias = self.mode == "bicubic" or new[0] < old[0] or new[1] < old[1]
        resized = (
            image if new == old else _resize_slices(image, new, mode=self.mode, antialias=antialias)
        )
        if isinstance(image, MetaTensor):
            resized = MetaTensor(plain_tensor(resized)).copy_meta_from(image)
            depth = image.shape[3]
            resized.affine = image.affine @ torch.as_tensor(
                scale_affine((*old, depth), (*new, depth)), dtype=image.affine.dtype
            )
            self.push_transform(
                resized, orig_size=(*old, depth), extra_info={"affine": image.affine.numpy()}
            )
        return resized if new == self.size else self.pad(resized)

    def inverse(self, image: MetaTensor) -> torch.Tensor:
        """Undo the fit on a map ``(C, *size, Z)`` that carries the forward trace."""
        if image.applied_operations[-1][TraceKeys.CLASS_NAME] == type(self.pad).__name__:
            image = self.pad.inverse(image)
        trace = self.pop_transform(image)
        width, height, _ = trace[TraceKeys.ORIG_SIZE]
        mode = "nearest" if self.mode == "nearest" else "bilinear"
        restored = _resize_slices(image, (width, height), mode=mode, antialias=False)
        result = MetaTensor(restored.contiguous()).copy_meta_from(image)
        result.affine = torch.as_tensor(trace[TraceKeys.EXTRA_INFO]["affine"])
        return result


class FitInPlaned(MapTransform, InvertibleTransform):
    """Dictionary form of :class:`FitInPlane`.

    Args:
        keys: volumes to fit.
        size: see :class:`FitInPlane`.
        mode: interpolation, one for all keys or one for each.
        keep_aspect: see :class:`FitInPlane`.
        aspects: see :class:`FitInPlane`.
        allow_missing_keys: whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: Size = 256,
        mode: Sequence[str] | str = "bilinear",
        keep_aspect: bool = True,
        aspects: tuple[float, float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fits = [
            FitInPlane(size, mode=m, keep_aspect=keep_aspect, aspects=aspects)
            for m in ensure_tuple_rep(mode, len(self.keys))
        ]

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
