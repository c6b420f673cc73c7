"""Overlays as PNG files with a caption: score, verdict, colours of the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from multiad_med.utils.atomic import atomic_path
from multiad_med.visualize.colours import SHOWN, heat_colours

__all__ = ["read_overlay", "save_overlay"]

_NARROWEST = 320  # pixels; below it no line of text fits
_USUAL = 720  # pixels of width that text of 14 pixels suits
_SIZE = "Overlay size"
_GREY = 0.45  # of an image, under the colours


def _lines(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Return text broken between words, so that no line is wider."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _colours(width: int, height: int) -> Image.Image:
    """Return the colours of the map from the lowest that is shown to the brightest, over grey."""
    colours = heat_colours(np.linspace(*SHOWN, width, dtype=np.float32))
    row = 255 * (_GREY * (1 - colours[:, 3:]) + colours[:, :3] * colours[:, 3:])
    return Image.fromarray(np.repeat(row.round().astype(np.uint8)[None], height, axis=0))


def _caption(text: str, width: int) -> Image.Image:
    """Return the text, and below it the colours of the map with its threshold."""
    unit = max(1.0, width / _USUAL)
    margin, line = round(8 * unit), round(19 * unit)
    font = ImageFont.load_default(size=round(14 * unit))
    assert isinstance(font, ImageFont.FreeTypeFont)
    lines = _lines(text, font, width - 2 * margin)
    bar_width, bar_height = min(width - 2 * margin, round(300 * unit)), round(10 * unit)
    height = line * len(lines) + bar_height + line + 3 * margin
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for number, words in enumerate(lines):
        draw.text((margin, margin + number * line), words, fill="white", font=font)
    top = 2 * margin + line * len(lines)
    image.paste(_colours(bar_width, bar_height), (margin, top))
    low, high = SHOWN
    at = margin + round((0.5 - low) / (high - low) * bar_width)
    draw.line([(at, top - margin // 3), (at, top + bar_height)], fill="white", width=round(unit))
    below, small = top + bar_height + 2, font.font_variant(size=round(12 * unit))
    for x, anchor, words in (
        (margin, "la", f"{low:g}"),
        (at, "ma", "0.5 threshold"),
        (margin + bar_width, "ra", f"{high:g} and above"),
    ):
        draw.text((x, below), words, fill="white", font=small, anchor=anchor)
    return image


def save_overlay(path: Path, shown: NDArray[np.uint8], text: str) -> None:
    """Write an overlay as PNG with a caption below: the text, and the colours of the map.

    Args:
        path: of the file.
        shown: the overlay ``(H, W, 3)``; its pixels stay as they are, at the top left.
        text: such as score and verdict.
    """
    height, width = shown.shape[:2]
    caption = _caption(text, max(width, _NARROWEST))
    image = Image.new("RGB", (caption.width, height + caption.height))
    image.paste(Image.fromarray(shown), (0, 0))
    image.paste(caption, (0, height))
    about = PngInfo()
    about.add_text(_SIZE, f"{width} {height}")
    with atomic_path(path) as temporary:
        image.save(temporary, pnginfo=about)


def read_overlay(path: Path) -> Image.Image:
    """Return an overlay without its caption."""
    with Image.open(path) as image:
        size = image.info.get(_SIZE, "").split()
        width, height = map(int, size) if len(size) == 2 else image.size
        return image.convert("RGB").crop((0, 0, width, height))
