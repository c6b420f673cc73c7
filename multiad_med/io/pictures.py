"""Pictures as one-slice volumes, and B-scans as the slices of one volume."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, ensure_tuple
from numpy.typing import NDArray
from PIL import Image, ImageOps

from multiad_med.utils.errors import MultiADError, reader_errors

__all__ = [
    "PICTURE_SUFFIXES",
    "LoadPictureMasks",
    "LoadPictureMasksd",
    "LoadPictures",
    "LoadPicturesd",
    "PictureError",
]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_LOSSY = (".jpg", ".jpeg")
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "F")


class PictureError(MultiADError, ValueError):
    """A picture cannot be read, or does not fit the others of its volume."""


def _open(path: Path) -> Image.Image:
    with reader_errors(path, PictureError, "not a readable picture"):
        # From memory: a damaged length makes Pillow ask for gigabytes, which a file would allocate.
        picture = Image.open(BytesIO(path.read_bytes()))
        picture.load()
    pages = getattr(picture, "n_frames", 1)
    if pages > 1:
        raise PictureError(f"{path}: {pages} pages; save each as a picture of its own.")
    # A camera notes how it was held; masks are drawn on what viewers show.
    return ImageOps.exif_transpose(picture)


def _grey(picture: Image.Image) -> NDArray[Any]:
    """Values ``(H, W)`` of a grey picture in its own depth, 8 or 16 bits."""
    if picture.mode in ("I;16", "I;16B"):
        return np.asarray(picture).astype(np.uint16)
    if picture.mode == "I":
        values = np.asarray(picture)
        return values.clip(0, 65535).astype(np.uint16)
    return np.asarray(picture.convert("L"))


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


class LoadPictures(Transform):
    """Read one picture, or several of one size as the slices of a volume, upright, in [0, 1].

    8 and 16 bits become [0, 1] by their full range. Transparency is dropped, palettes are resolved.

    Args:
        colour: whether three channels (red, green, blue) or one (grey) are given out; none decides
            by the first file.
    """

    def __init__(self, *, colour: bool | None = None) -> None:
        self.colour = colour

    def __call__(
        self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> MetaTensor:
        """Pictures ``(C, H, W, N)``, float32 in [0, 1]; the affine is the identity, in pixels.

        Raises:
            PictureError: naming the file that cannot be read, or has another size than the first.
        """
        slices: list[NDArray[np.float32]] = []
        colour = self.colour
        for path in (Path(name) for name in ensure_tuple(filename)):
            picture = _open(path)
            if picture.mode == "F":
                raise PictureError(f"{path}: floating-point pictures have no range; save 16 bits.")
            if colour is None:
                colour = picture.mode not in _GREY_MODES
            if colour:
                grey = picture.mode in ("I", "I;16", "I;16B")
                values = (
                    np.stack([_grey(picture)] * 3)
                    if grey
                    else np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
                )
            else:
                values = _grey(picture)[None]
            if slices and values.shape != slices[0].shape:
                raise PictureError(
                    f"{path}: {values.shape[1]}x{values.shape[2]} pixels, but the volume's first slice "
                    f"has {slices[0].shape[1]}x{slices[0].shape[2]}."
                )
            slices.append(_unit(values))
        first = str(ensure_tuple(filename)[0])
        return MetaTensor(
            torch.from_numpy(np.stack(slices, axis=-1)), meta={ImageMetaKey.FILENAME_OR_OBJ: first}
        )


class LoadPictureMasks(Transform):
    """Read the masks of a picture as one, or those of B-scans as a volume's slices.

    Args:
        stack: whether several files are the slices of a volume; otherwise they are parts of one
            picture's mask, which is where any of them is.
        keep_values: whether grey values are kept as labels; otherwise a pixel is 1 where its value
            is above 0, in JPEG files above half of the range, since their blacks are not exact.
    """

    def __init__(self, *, stack: bool = False, keep_values: bool = False) -> None:
        self.stack = stack
        self.keep_values = keep_values

    def _read(self, path: Path) -> NDArray[np.uint8]:
        picture = _open(path)
        if self.keep_values:
            indexed = picture.mode == "P"  # a palette's indices are the labels
            values = np.asarray(picture) if indexed else _grey(picture)
            if values.max(initial=0) > 255:
                raise PictureError(
                    f"{path}: label {values.max()}; labels of 0 to 255 are supported."
                )
            return values.astype(np.uint8)
        if picture.mode in ("RGB", "RGBA", "P"):
            values = np.asarray(picture.convert("RGB")).max(axis=-1)
        else:
            values = _grey(picture)
        limit = np.iinfo(values.dtype).max // 2 if path.suffix.lower() in _LOSSY else 0
        return (values > limit).astype(np.uint8)

    def __call__(
        self, filename: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> torch.Tensor:
        """Masks ``(1, H, W, N)``, uint8; N is 1 unless ``stack``.

        Raises:
            PictureError: naming the file that cannot be read, or has another size than the first.
        """
        masks: list[NDArray[np.uint8]] = []
        for path in (Path(name) for name in ensure_tuple(filename)):
            mask = self._read(path)
            if masks and mask.shape != masks[0].shape:
                raise PictureError(
                    f"{path}: {mask.shape[0]}x{mask.shape[1]} pixels, but the first mask has "
                    f"{masks[0].shape[0]}x{masks[0].shape[1]}."
                )
            masks.append(mask)
        volume = np.stack(masks, axis=-1) if self.stack else np.max(masks, axis=0)[..., None]
        return torch.from_numpy(volume[None])


class LoadPicturesd(MapTransform):
    """Dictionary form of :class:`LoadPictures`."""

    def __init__(self, keys: KeysCollection, *, colour: bool | None = None) -> None:
        super().__init__(keys)
        self.load = LoadPictures(colour=colour)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read each key's file or files."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.load(result[key])
        return result


class LoadPictureMasksd(MapTransform):
    """Dictionary form of :class:`LoadPictureMasks`, checking the size against the picture's.

    Args:
        keys: masks, read where present.
        image_key: the picture they belong to, already read.
        stack, keep_values: see :class:`LoadPictureMasks`.
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
        self.load = LoadPictureMasks(stack=stack, keep_values=keep_values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read each key's mask or masks.

        Raises:
            PictureError: when a mask has another size than its picture.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            source = ensure_tuple(result[key])[0]
            mask = self.load(result[key])
            if mask.shape[1:] != result[self.image_key].shape[1:]:
                raise PictureError(
                    f"{source}: a mask of shape {tuple(mask.shape[1:])} (rows, columns, slices) for a "
                    f"picture of {tuple(result[self.image_key].shape[1:])}."
                )
            result[key] = mask
        return result
