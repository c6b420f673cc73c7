"""A size in pixels: one number of a square, or two of a rectangle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

from multiad_med.utils.errors import InputError

__all__ = ["Size", "shortest", "sides", "size_setting"]

Size: TypeAlias = int | Sequence[int]
"""Side of a square, or the sides of a rectangle in the order of the image's own axes: ``[rows,
columns]`` of images and B-scans, ``[X, Y]`` of the axial slices of a volume."""


def sides(size: Size, *, name: str = "size") -> tuple[int, int]:
    """Return both sides of a size.

    Args:
        size: see :data:`Size`.
        name: of the argument, for the message.

    Raises:
        InputError: when it is neither one nor two positive whole numbers.
    """
    given = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(given) != 2 or not all(isinstance(side, int) and side > 0 for side in given):
        raise InputError(
            f"{name} must be a positive number of pixels, got {size!r}. One number is a square; a list "
            "of two is a rectangle: [rows, columns] of images."
        )
    return given


def shortest(size: Size) -> int | list[int]:
    """Return a size as cards and settings have it: one number for a square, for equality."""
    first, second = sides(size)
    return first if first == second else [first, second]


def size_setting(size: Size) -> str:
    """Return the command-line option that sets a size."""
    short = shortest(size)
    if isinstance(short, int):
        return f"--set size={short}"
    return f'--set "size={json.dumps(short, separators=(",", ":"))}"'
