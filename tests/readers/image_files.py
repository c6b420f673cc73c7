"""Image files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

GREY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)  # fifths of the range


def write(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def palette(path: Path, indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Path:
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette([value for colour in colours for value in colour])
    image.save(path)
    assert Image.open(path).mode == "P"
    return path


def upright(values: np.ndarray) -> np.ndarray:
    """(rows, columns) or (rows, columns, channels) as (channels, rows, columns, 1)."""
    return np.atleast_3d(values).transpose(2, 0, 1)[..., None]
