"""Padding: the constant around what was imaged, whatever its value, turned into background."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from multiad_med.transforms.memory_order import stored_order
from multiad_med.transforms.quantiles import quantiles
from multiad_med.utils.tensors import plain_tensor

__all__ = ["padding_values", "without_padding"]

# Noise has fewer equal values in the corners, and they are not connected.
_CORNERS = 0.1
_VOXELS = 1e-3


def _corners(stored: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the four corner voxels of every slice of ``(Z, Y, X)``."""
    return stored[:, [0, 0, -1, -1], [0, -1, 0, -1]]


def padding_values(volume: torch.Tensor) -> list[float]:
    """Return values that fill at least a tenth of the slices' corners, as padding does.

    A corner is a voxel and its inner neighbour across, which seldom agree in noise.

    Args:
        volume: ``(X, Y, Z)``, last axis axial.
    """
    plain = plain_tensor(volume)
    stored = plain.permute(2, 1, 0).numpy(force=True)
    corners = _corners(stored)
    inner = stored[:, *(slice(1, -1) if extent > 2 else slice(None) for extent in stored.shape[1:])]
    values, counts = np.unique(corners[_corners(inner) == corners], return_counts=True)
    return [float(v) for v in values[counts >= _CORNERS * corners.size]]


def without_padding(volume: torch.Tensor) -> torch.Tensor:
    """Return the volume as if its padding were background: 0, or the darkest where values are negative.

    In a volume without air, a constant below tissue is background already, unless it is far below.

    Scanners, registration and anonymisers fill what was not imaged with a constant: below the
    tissue's range (-2000), inside or above it (65535, 1024). Padding is what has one such value and
    is connected to the corners of the slices. What is darker than the background after that,
    such as voxels interpolated between padding and air, becomes background as well.

    Args:
        volume: ``(X, Y, Z)``, last axis axial; it is not changed.

    Returns:
        The volume itself where its only padding is background already.
    """
    plain = plain_tensor(volume)
    order = stored_order(plain)
    array = plain.permute(order).numpy(force=True)
    lowest = float(array.min())
    values = padding_values(plain)
    if not values or values == [lowest] == [0.0]:
        return volume
    padding = np.zeros(array.shape, bool)
    for value in values:
        padding |= _reaching_corners(array == value, order)
    rest = array[~padding]
    if rest.size in (0, array.size):
        return volume
    least, dark, bright = quantiles(torch.from_numpy(rest), (0.001, 0.05, 0.98))
    if values == [lowest] and not lowest < 0 <= dark:
        # Tissue without air, and not far above the constant: it is background.
        air = np.count_nonzero(rest <= dark + 0.1 * (bright - dark)) > 0.25 * rest.size
        if not air and dark - lowest <= 4 * (bright - dark):
            return volume
    background = 0.0 if dark >= 0 else least
    result = np.maximum(array, array.dtype.type(background))
    result[padding] = background
    back = [order.index(axis) for axis in range(3)]
    return torch.from_numpy(result).permute(back)


def _reaching_corners(equal: NDArray[np.bool_], order: list[int]) -> NDArray[np.bool_]:
    """Return the voxels of one value that are connected to the corners of a slice."""
    nothing = np.zeros_like(equal)
    if np.count_nonzero(equal) < _VOXELS * equal.size:
        return nothing
    regions, count = ndimage.label(equal)
    corners = _corners(regions.transpose([order.index(axis) for axis in (2, 1, 0)]))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    wanted = np.zeros(count + 1, bool)
    wanted[np.unique(corners)] = True
    wanted &= sizes >= _VOXELS * equal.size
    wanted[0] = False
    return wanted[regions]
