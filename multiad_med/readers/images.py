"""Images as one-slice volumes, and B-scans as the slices of one volume."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, ensure_tuple
from numpy.typing import NDArray

from multiad_med.readers.image_file import ImageError, ImageFile, open_image
from multiad_med.utils.suffixes import IMAGE_SUFFIXES

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageError",
    "LoadImageMasks",
    "LoadImageMasksd",
    "LoadImages",
    "LoadImagesd",
]

_LOSSY = (".jpg", ".jpeg")
_NOISE = 32  # of JPEG's blacks, in 8 bits


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.divide(values, np.float32(np.iinfo(values.dtype).max), dtype=np.float32)


class LoadImages(Transform):
    """Read one image, or several of one size as the slices of a volume, upright, in [0, 1].

    Integers of 8 and 16 bits, signed ones too, become [0, 1] by the full range of their type; white is
    always 1. Transparency is dropped, palettes are resolved.

    Args:
        colour: whether to return three channels (red, green, blue) or one (grey); none decides by
            the first file.
    """

    def __init__(self, *, colour: bool | None = None) -> None:
        self.colour = colour
        self._warned = False
        self._warned_of_blank = False

    def _warn_of_few_bits(self, image: ImageFile, values: NDArray[Any]) -> None:
        """Warn, once for all images, of 16 bits that hold 10 or 12: they would be nearly black."""
        top = values.max(initial=0)
        few = 2**12 if values.dtype == np.uint16 else 2**4  # deep colour comes as its upper 8 bits
        if image.bits == 16 and 0 < top < few and not self._warned:
            self._warned = True
            warnings.warn(
                f"{image.path}: 16 bits, but no value is above a sixteenth of their range, as where a "
                "camera's 10 or 12 bits are stored in 16. It is read as nearly black; multiply all "
                "images alike (12 bits by 16) and save them again. Said of the first such image only.",
                stacklevel=2,
            )

    def _warn_of_blank(self, path: str, volume: NDArray[np.float32]) -> None:
        """Warn, once for all images, of one that shows nothing."""
        low, high = volume.min(initial=1), volume.max(initial=0)
        if low == high and not self._warned_of_blank:
            self._warned_of_blank = True
            warnings.warn(
                f"{path}: every pixel has the value {low:.3g} of 1; the image shows nothing. Said of the "
                "first such image only.",
                stacklevel=2,
            )

    def __call__(
        self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> MetaTensor:
        """Read images ``(C, H, W, N)``, float32 in [0, 1]; the affine is the identity, in pixels.

        Raises:
            ImageError: naming the file that cannot be read, or has another size than the first.
        """
        slices: list[NDArray[np.float32]] = []
        colour = self.colour
        for path in (Path(name) for name in ensure_tuple(filename)):
            image = open_image(path)
            if colour is None:
                colour = not image.is_grey
            values = image.channels() if colour else image.grey()[None]
            self._warn_of_few_bits(image, values)
            if slices and values.shape != slices[0].shape:
                raise ImageError(
                    f"{path}: {values.shape[1]}x{values.shape[2]} pixels, but the volume's first slice "
                    f"has {slices[0].shape[1]}x{slices[0].shape[2]}."
                )
            slices.append(_unit(values))
        first = str(ensure_tuple(filename)[0])
        # One image, which may be large, is not copied.
        volume = slices[0][..., None] if len(slices) == 1 else np.stack(slices, axis=-1)
        self._warn_of_blank(first, volume)
        return MetaTensor(torch.from_numpy(volume), meta={ImageMetaKey.FILENAME_OR_OBJ: first})


class LoadImageMasks(Transform):
    """Read the masks of an image as one, or those of B-scans as a volume's slices.

    Args:
        stack: whether several files are the slices of a volume; otherwise they are parts of one
            image's mask, joined into one.
        keep_values: whether grey values are kept as labels; otherwise a pixel is 1 where its value
            is above 0 in any channel and not transparent, in JPEG files above half of their highest
            value, since their blacks are not exact.
    """

    def __init__(self, *, stack: bool = False, keep_values: bool = False) -> None:
        self.stack = stack
        self.keep_values = keep_values

    def _read(self, path: Path) -> NDArray[np.uint8]:
        image = open_image(path)
        if self.keep_values:
            values = image.labels()
            low, high = values.min(initial=0), values.max(initial=0)
            if low < 0 or high > 255 or not np.array_equal(values, values.astype(np.uint8)):
                wrong = high if high > 255 else low
                raise ImageError(f"{path}: label {wrong}; whole labels of 0 to 255 are supported.")
            return values.astype(np.uint8)
        values = image.marked()
        limit = max(values.max(initial=0) // 2, _NOISE) if path.suffix.lower() in _LOSSY else 0
        return (values > limit).astype(np.uint8)

    def __call__(
        self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> torch.Tensor:
        """Read masks ``(1, H, W, N)``, uint8; N is 1 unless ``stack``.

        Raises:
            ImageError: naming the file that cannot be read, or has another size than the first.
        """
        masks: list[NDArray[np.uint8]] = []
        for path in (Path(name) for name in ensure_tuple(filename)):
            mask = self._read(path)
            if masks and mask.shape != masks[0].shape:
                raise ImageError(
                    f"{path}: {mask.shape[0]}x{mask.shape[1]} pixels, but the first mask has "
                    f"{masks[0].shape[0]}x{masks[0].shape[1]}."
                )
            masks.append(mask)
        volume = np.stack(masks, axis=-1) if self.stack else np.max(masks, axis=0)[..., None]
        return torch.from_numpy(volume[None])


class LoadImagesd(MapTransform):
    """Dictionary form of :class:`LoadImages`."""

    def __init__(self, keys: KeysCollection, *, colour: bool | None = None) -> None:
        super().__init__(keys)
        self.load = LoadImages(colour=colour)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read each key's file or files."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.load(result[key])
        return result


class LoadImageMasksd(MapTransform):
    """Dictionary form of :class:`LoadImageMasks`, checking the size against the image's.

    A warning names the mask of an ``anomalous`` item that marks nothing or everything.

    Args:
        keys: masks, read where present.
        image_key: the image they belong to, already read.
        stack: see :class:`LoadImageMasks`.
        keep_values: see :class:`LoadImageMasks`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        image_key: str = "image",
        stack: bool = False,
        keep_values: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key
        self.load = LoadImageMasks(stack=stack, keep_values=keep_values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read each key's mask or masks.

        Raises:
            ImageError: when a mask has another size than its image.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            source = ensure_tuple(result[key])[0]
            mask = self.load(result[key])
            if mask.shape[1:] != result[self.image_key].shape[1:]:
                raise ImageError(
                    f"{source}: a mask of shape {tuple(mask.shape[1:])} (rows, columns, slices) for "
                    f"an image of {tuple(result[self.image_key].shape[1:])}."
                )
            if result.get("anomalous") and (not mask.any() or mask.all()):
                what = "everything" if mask.any() else "nothing"
                warnings.warn(
                    f"{source}: the mask of an anomalous image marks {what}; check its values.",
                    stacklevel=2,
                )
            result[key] = mask
        return result
