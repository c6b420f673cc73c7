"""Colours of an anomaly map over its image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["SHOWN", "heat_colours", "intensity_range", "outlined", "overlaid", "scale_colours"]

SHOWN = (0.4, 0.75)
"""Below the first value a map is transparent; at the second it has its brightest colour."""

_LINE = (255, 255, 255)
_SAMPLE = 1_000_000
_ROWS = 1024  # coloured at a time: colours take 50 times the memory of their map


def intensity_range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the values shown black and white: the lowest, and the 99.5 % quantile of those above it.

    The quantile is of a million values at most, evenly drawn. Where all values are the same, white is
    1 above black.
    """
    low = float(values.min())
    above = values[values > low]
    if not above.size:
        return low, low + 1
    return low, float(np.quantile(above[:: max(1, above.size // _SAMPLE)], 0.995))


def heat_colours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return colours in [0, 1] with opacity last, ``(..., 4)``, of map values ``(...)``."""
    from matplotlib import colormaps

    low, high = SHOWN
    colours = colormaps["inferno"]((values - low) / (high - low))
    colours[..., 3] = ((values - low) / (0.5 - low)).clip(0, 1) * 0.8
    return colours.astype(np.float32)


def scale_colours(steps: int = 50) -> list[str]:
    """Return the colours of :data:`SHOWN` on the grey of an image, as a page writes them."""
    colours = heat_colours(np.linspace(*SHOWN, steps, dtype=np.float32))
    opacity = colours[:, 3:]
    shown = (255 * (0.45 * (1 - opacity) + colours[:, :3] * opacity)).round().astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in shown.tolist()]


def outlined(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return the image ``(H, W, 3)`` with a two-pixel line and a shadow around the mask."""
    line = ndimage.binary_dilation(mask, iterations=2) & ~mask
    shadow = ndimage.binary_dilation(mask | line) & ~(mask | line)
    result = image.copy()
    result[shadow] = result[shadow] // 3
    result[line] = colour
    return result


def overlaid(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.float32], *, threshold: float = 0.5
) -> NDArray[np.uint8]:
    """Return the map's heat over an image, with a white line around what reaches the threshold.

    Args:
        image: ``(H, W, 3)``.
        anomaly_map: ``(H, W)``, calibrated, in [0, 1).
        threshold: of the line.
    """
    heat = np.empty_like(image)
    for start in range(0, len(image), _ROWS):
        rows = slice(start, start + _ROWS)
        colours = heat_colours(anomaly_map[rows])
        opacity = colours[..., 3:]
        heat[rows] = (image[rows] * (1 - opacity) + 255 * colours[..., :3] * opacity).round()
    return outlined(heat, anomaly_map >= threshold, _LINE)
