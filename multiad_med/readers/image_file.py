"""One image file, upright, with its values as they are stored: PNG, JPEG, BMP, TIFF."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from multiad_med.utils.errors import MultiADError, reader_errors

__all__ = ["ImageError", "ImageFile", "image_size", "open_image"]

_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_GREY = ("1", "L", "LA", "F", *_DEEP)
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2
_ON_ITS_SIDE = (5, 6, 7, 8)  # orientations of EXIF
_ALWAYS_ALLOWED = 2**24  # pixels
_PER_BYTE = 10_000  # pixels; deflate packs 8,256 of one bit into a byte
_PER_BYTE_OF_ONE_BIT = 1_000_000  # fax codes: a blank row is a bit
_pillow_limit = threading.Lock()


class ImageError(MultiADError, ValueError):
    """An image cannot be read, or does not fit the others of its volume."""


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit of pixels, which takes no account of the file's own size."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, stored: int) -> None:
    """Refuse a header that claims more than its file can hold: damage, or a decompression bomb."""
    per_byte = _PER_BYTE_OF_ONE_BIT if image.mode == "1" else _PER_BYTE
    if image.width * image.height > max(_ALWAYS_ALLOWED, per_byte * stored):
        raise ValueError(f"it claims {image.width}x{image.height} pixels in {stored} bytes")


@dataclass(frozen=True)
class ImageFile:
    """An image that was read.

    Attributes:
        path: its file.
        image: upright.
        bits: of each stored value.
        signed: whether stored values are signed.
        inverted: whether 0 is white, and Pillow has not inverted it.
    """

    path: Path
    image: Image.Image
    bits: int
    signed: bool
    inverted: bool

    @property
    def is_grey(self) -> bool:
        """Whether it has no colour."""
        return self.image.mode in _GREY

    @property
    def is_deep(self) -> bool:
        """Whether it is grey of more than 8 bits."""
        return self.image.mode in _DEEP

    def grey(self) -> NDArray[Any]:
        """Return values ``(H, W)`` as integers from 0, white highest, over the full range of their type.

        Signed values are shifted to begin at 0.

        Raises:
            ImageError: on floating-point or 32-bit values, whose range is unknown.
        """
        if self.image.mode == "F" or self.bits > 16:
            kind = "floating-point" if self.image.mode == "F" else f"{self.bits}-bit"
            raise ImageError(f"{self.path}: {kind} images have no range; save 16 bits.")
        if not self.is_deep:
            values = np.asarray(self.image.convert("L"))
            return values ^ np.uint8(128) if self.signed else values
        values = np.asarray(self.image)
        if self.signed:
            values = values + 2**15
        values = values.astype(np.uint16)
        top = np.uint16(2**self.bits - 1)
        if self.inverted:
            values = top - values
        if self.bits < 16:  # 12 bits packed
            values = (values * np.float32(65535 / top)).round().astype(np.uint16)
        return values

    def channels(self) -> NDArray[Any]:
        """Return red, green and blue ``(3, H, W)``, see :meth:`grey`; all the same for a grey image."""
        if self.is_deep or self.signed or self.image.mode == "F":
            return np.stack([self.grey()] * 3)
        return np.asarray(self._as("RGB")).transpose(2, 0, 1)

    def labels(self) -> NDArray[Any]:
        """Return the stored grey values ``(H, W)``, or the indices of a palette."""
        if self.image.mode in ("P", "F", *_DEEP):
            return np.asarray(self.image)
        return self.grey()

    def marked(self) -> NDArray[Any]:
        """Return values ``(H, W)`` that are 0 where a mask marks nothing: the highest channel.

        Where a pixel is transparent nothing is marked, whatever its colour.
        """
        if self.image.mode == "F" or (self.is_deep and not self.inverted):
            return np.maximum(np.nan_to_num(np.asarray(self.image)), 0)
        if self.is_deep or self.image.mode in ("1", "L"):
            return self.grey() if self.is_deep else np.asarray(self.image.convert("L"))
        pixels = np.asarray(self._as("RGBA"))
        return pixels[..., :3].max(axis=-1) * (pixels[..., 3] > 0)

    def _as(self, mode: str) -> Image.Image:
        try:
            return self.image.convert(mode)
        except ValueError as error:
            raise ImageError(
                f"{self.path}: colour mode {self.image.mode} is not read; save it as RGB."
            ) from error


def _stored_bits(image: Image.Image) -> int:
    """Return the bits of each stored value; call it before the image is loaded."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        bits = tags.get(_BITS, 1)
        return int(max(bits) if isinstance(bits, tuple) else bits)
    deep_colour = image.format == "PNG" and any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )
    return 16 if image.mode in _DEEP or deep_colour else 8


def _open(path: Path) -> Image.Image:
    """Open an image: read its header, and no pixel."""
    # From memory: a damaged length makes Pillow ask for gigabytes, which a file would allocate.
    content = path.read_bytes()
    if not content:
        raise ImageError(f"{path}: not a readable image: it is empty (0 bytes)")
    try:
        with _any_size():
            image = Image.open(BytesIO(content))
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not a readable image: damaged, or of a kind that is not read; save it as "
            "PNG of 8 or 16 bits."
        ) from error
    _check_size(image, len(content))
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Return rows and columns of an image as viewers show it, by its header.

    Raises:
        ImageError, FileError: as of :func:`open_image`, of the header only.
    """
    with reader_errors(path, ImageError, "not a readable image"):
        image = _open(path)
        # Pillow gives the size of a TIFF as viewers show it, of other formats as it is stored.
        as_stored = image.format != "TIFF"
        turned = as_stored and image.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
    return (image.width, image.height) if turned else (image.height, image.width)


def open_image(path: Path) -> ImageFile:
    """Read an image of any size.

    Raises:
        ImageError: naming the file and what is wrong with it.
        FileError: when there is none, or it cannot be opened.
    """
    with reader_errors(path, ImageError, "not a readable image"):
        image = _open(path)
        bits = _stored_bits(image)
        image.load()
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # a telephone's JPEG, followed by previews
        raise ImageError(f"{path}: {pages} pages; save each as an image of its own.")
    tags = getattr(image, "tag_v2", {})
    signed = _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1))
    inverted = image.mode in _DEEP and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    # A camera notes how it was held; masks are drawn on what viewers show.
    return ImageFile(path, ImageOps.exif_transpose(image), bits, signed, inverted)
