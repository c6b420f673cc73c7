"""Example slices: the image, the map over it, and the true lesion, each a small JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiad_med.evaluation.evaluation import Example
from multiad_med.evaluation.words import Words
from multiad_med.utils.errors import InputError
from multiad_med.visualize.colours import outlined, overlaid
from multiad_med.visualize.embedded import embedded_jpeg

__all__ = ["ExampleFigure", "example_figure"]

_SIDE = 256
_MOST = 48_000  # characters of an image
_QUALITIES = (88, 75, 60, 45, 30, 15)
_LESION_LINE = (0, 229, 255)


def _array(example: Example, name: str) -> NDArray[np.float32]:
    values = np.asarray(getattr(example, name).detach().cpu(), dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise InputError(f"Example {example.title!r}: {name} must be (H, W), got {values.shape}.")
    if values.shape != tuple(example.image.shape):
        raise InputError(
            f"Example {example.title!r}: image {tuple(example.image.shape)} and {name} {values.shape} "
            "differ in shape."
        )
    return np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0)


def _resized(
    values: NDArray[np.float32], resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> NDArray[np.float32]:
    """Return values on a grid whose longer side is 256."""
    height, width = values.shape
    factor = _SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(values).resize(size, resampling))


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    """Return a JPEG of at most 48,000 characters, or of the lowest quality."""
    image = Image.fromarray(pixels)
    for quality in _QUALITIES:
        source = embedded_jpeg(image, quality=quality, subsampling=0)
        if len(source) <= _MOST:
            break
    return source


@dataclass(frozen=True)
class ExampleFigure:
    """Three images of one slice, side by side.

    Attributes:
        caption: below them.
        images: address and alternative text of each.
        width, height: of each, in pixels.
    """

    caption: str
    images: list[tuple[str, str]]
    width: int
    height: int


def example_figure(example: Example, words: Words) -> ExampleFigure:
    """Draw image, image under map, and image with the outline of the lesion.

    Raises:
        InputError: when an image is not ``(H, W)`` or they differ in shape.
    """
    image, heat_map, label = (_array(example, name) for name in ("image", "anomaly_map", "label"))
    grey = (_resized(image).clip(0, 1)[..., None] * 255).round().astype(np.uint8).repeat(3, axis=2)
    heat = _resized(heat_map)
    # A pixel that touches the lesion is lesion, so that the smallest one is still outlined.
    lesion = _resized((label > 0).astype(np.float32), Image.Resampling.BOX) > 0
    marked = bool((heat >= 0.5).any())
    panels = (
        (grey, f"The {words.slice}."),
        (
            overlaid(grey, heat),
            f"The {words.slice} under its anomaly map"
            + ("; a line encloses what reaches 0.5." if marked else ", which nowhere reaches 0.5."),
        ),
        (
            outlined(grey, lesion, _LESION_LINE),
            f"The {words.slice} with the outline of the true {words.lesion}."
            if lesion.any()
            else f"The {words.slice} again, without any {words.lesion}.",
        ),
    )
    height, width = grey.shape[:2]
    caption = example.title + ("" if lesion.any() else f" (no {words.lesion} outlined)")
    images = [(_jpeg(pixels), alternative) for pixels, alternative in panels]
    return ExampleFigure(caption, images, width, height)
