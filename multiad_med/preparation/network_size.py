"""The size of a network's input, by the images' own size and the smallest defect that matters."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from multiad_med.data.datalist import first_path
from multiad_med.data.joined_slices import prepared_size
from multiad_med.readers.image_file import image_size
from multiad_med.transforms.fit import LIKE
from multiad_med.utils.errors import InputError, MultiADError
from multiad_med.utils.sizes import Size, shortest, sides, size_setting

__all__ = ["fitting_size", "network_input", "recommended_size", "visible_defect"]

_logger = logging.getLogger(__name__)

AREA = 256**2
"""Pixels of a network's input where nothing asks for more: those of the published square."""
LARGEST_AREA = 512**2
"""Most pixels that are recommended: four times the default's memory and time. Tiles show more."""
STEP = 32
"""Sides are multiples of it, so that every stage of the networks divides them."""
LOCATION = 4
"""Side, in pixels of the network's input, of the square that one of its finest features covers."""
TILE = 256


def fitting_size(image: tuple[int, int], *, area: int = AREA) -> tuple[int, int]:
    """Return the rectangle nearest an image's aspect and an area; sides are multiples of :data:`STEP`.

    The larger of the two factors by which aspect and area are missed is as small as possible.

    Args:
        image: rows and columns.
        area: in pixels.

    Returns:
        Rows and columns; 256 and 256 for a square image and the default area.
    """

    def missed(size: tuple[int, int]) -> tuple[float, float]:
        rows, columns = size
        by_aspect = abs(math.log(rows * image[1] / (columns * image[0])))
        by_area = abs(math.log(rows * columns / area))
        return max(by_aspect, by_area), by_aspect

    lengths = range(STEP, area // STEP + 1, STEP)
    return min(product(lengths, lengths), key=missed)


def visible_defect(image: tuple[int, int], size: tuple[int, int]) -> int:
    """Return the side of an image's smallest square that covers one of the network's finest features.

    Args:
        image: rows and columns of the image.
        size: rows and columns that it is resized to.

    Returns:
        Whole pixels of the image, rounded up.
    """
    return math.ceil(LOCATION * max(a / b for a, b in zip(image, size, strict=True)))


def _size_that_shows(image: tuple[int, int], smallest: int) -> tuple[int, int]:
    rows, columns = (STEP * math.ceil(side * LOCATION / smallest / STEP) for side in image)
    return rows, columns


def recommended_size(image: tuple[int, int], *, smallest: int | None = None) -> tuple[int, int]:
    """Return the size of the network's input for images of a given size.

    It has the area :data:`AREA`, or as much as it takes until a defect of ``smallest`` pixels still
    covers one location of the finest features (:data:`LOCATION` pixels of the input), but no more than
    about :data:`LARGEST_AREA`.

    Args:
        image: rows and columns.
        smallest: side of the smallest defect that matters, in pixels of the image.
    """
    size = fitting_size(image)
    if smallest is None or visible_defect(image, size) <= smallest:
        return size
    size = _size_that_shows(image, smallest)
    return size if math.prod(size) <= LARGEST_AREA else fitting_size(image, area=LARGEST_AREA)


def network_input(
    *,
    source: str | Path,
    images: Sequence[Mapping[str, Any]],
    size: Size | None = None,
    smallest: int | None = None,
    tile: Size | None = None,
) -> dict[str, Any]:
    """Decide on the size of a network's input at the start of a training, and log what it can see.

    Args:
        source: of the training; prepared slices have a size already.
        images: items of a datalist, whose images train. Those that cannot be read are passed over;
            the training itself reports them. Without any, nothing is logged, as where several sites
            train one model and do not know each other's images.
        size: what was asked for; None means :func:`recommended_size`.
        smallest: see :func:`recommended_size`.
        tile: side or sides of tiles, which are not resized.

    Returns:
        ``size``, and ``aspects``: the least and the greatest aspect, columns to rows, of the images; None
        where they are unknown or cut into tiles.

    Raises:
        InputError: when ``smallest`` is given beside a size, tiles or prepared slices, or of images
            whose size is unknown.
    """
    stored = prepared_size(source)
    fixed = {
        "size": size,
        "tile": tile,
        "prepared slices": None if stored is None else str(source),
    }
    if smallest is not None and (given := [k for k, v in fixed.items() if v is not None]):
        raise InputError(
            f"smallest={smallest} decides on the network's size, which {given[0]} "
            f"({fixed[given[0]]}) does too. Leave one out."
        )
    if tile is not None:
        _logger.info(
            "Images keep their size and are cut into tiles of %dx%d pixels: the smallest defect that the "
            "network can see is about %d pixels wide.",
            *sides(tile, name="tile"),
            LOCATION,
        )
        return {"size": shortest(size or math.isqrt(AREA)), "aspects": None}
    found = {path: known for item in images if (known := _size_of(path := first_path(item)))}
    size = size or stored
    if not found:
        if smallest is not None:
            raise InputError(
                f"smallest={smallest}: the size of the images is not known here. Give the network's size."
            )
        return {"size": shortest(size or math.isqrt(AREA)), "aspects": None}
    aspect = median(columns / rows for rows, columns in found.values())
    area = median(rows * columns for rows, columns in found.values())
    image = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
    chosen = recommended_size(image, smallest=smallest) if size is None else sides(size)
    _tell(image, chosen, smallest=smallest)
    _warn_of_distortion(found, image, chosen)
    aspects = [columns / rows for rows, columns in found.values()]
    return {"size": shortest(chosen), "aspects": [min(aspects), max(aspects)]}


def _size_of(path: str) -> tuple[int, int] | None:
    try:
        return image_size(Path(path))
    except MultiADError:
        return None


def _tell(image: tuple[int, int], size: tuple[int, int], *, smallest: int | None) -> None:
    """Log the images' size, the network's, what it can see, and what to type for smaller defects."""
    seen = visible_defect(image, size)
    sizes = ((n, _size_that_shows(image, n)) for n in range(LOCATION, seen))
    finest = next((n for n, one in sizes if math.prod(one) <= LARGEST_AREA), None)
    advice = [] if finest is None else [f"--smallest {finest}"]
    if seen > LOCATION and finest != LOCATION:
        advice.append(f"--set tile={TILE} (from {LOCATION} pixels on, slower)")
    _logger.info(
        "Images of %dx%d pixels (rows x columns; the median) are resized to %dx%d: the smallest defect "
        "that the network can see is about %d pixels wide%s.%s",
        *image,
        *size,
        seen,
        "" if smallest is None or seen <= smallest else f", {smallest} was asked for",
        f" For smaller ones: {', or '.join(advice)}." if advice else "",
    )


def _warn_of_distortion(
    found: Mapping[str, tuple[int, int]], image: tuple[int, int], size: tuple[int, int]
) -> None:
    """Warn where images are stretched in one direction: all by a size, or some by their shape."""
    aspect = image[1] / image[0]
    by_size = max(aspect * size[0] / size[1], size[1] / size[0] / aspect)
    better = recommended_size(image)
    if by_size > LIKE and size != better:
        warnings.warn(
            f"{size[0]}x{size[1]} (rows x columns) stretches the images by {by_size:.2f} in one "
            f"direction. {size_setting(better)} keeps their shape.",
            stacklevel=3,
        )
    other = [
        path
        for path, (rows, columns) in found.items()
        if not 1 / LIKE <= columns / rows / aspect <= LIKE
    ]
    if other:
        warnings.warn(
            f"{len(other)} of {len(found)} images have another shape than most, such as {other[0]} "
            f"({found[other[0]][0]}x{found[other[0]][1]} pixels), and are distorted to the common size. "
            "Train images of each shape by themselves, or cut them into tiles (tile=256).",
            stacklevel=3,
        )
