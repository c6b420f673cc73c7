"""Overlap and distance of two masks on the grid of the source."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

from multiad_med.metrics.counting import as_anomalous
from multiad_med.utils.errors import InputError

__all__ = ["checked_spacing", "dice", "hausdorff95"]


def checked_spacing(spacing: Sequence[float], axes: int) -> tuple[float, ...]:
    """Return the spacing as floats, if it has a positive, finite number of mm for each axis.

    Args:
        spacing: mm per axis, in the order of the array's axes.
        axes: number of axes of the array.

    Raises:
        InputError: when a number is missing, too many, not positive, or not finite.
    """
    values = tuple(float(value) for value in spacing)
    if len(values) != axes or not all(math.isfinite(v) and v > 0 for v in values):
        raise InputError(
            f"spacing must be {axes} positive numbers of mm, one per axis of the array, got {values}."
        )
    return values


def _two_masks(prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != truth.shape:
        raise InputError(
            f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in shape; "
            "bring both to one grid first."
        )
    first, second = (torch.from_numpy(as_anomalous(mask)) for mask in (prediction, truth))
    return first.reshape(prediction.shape), second.reshape(truth.shape)


def dice(prediction: Tensor, truth: Tensor) -> float:
    """Return the Dice overlap 2 |A & B| / (|A| + |B|) of two masks.

    Two empty masks give NaN, so that scans without a lesion do not raise a mean. An empty truth with a
    non-empty prediction gives 0. MONAI's ``compute_dice`` leaves out (NaN) every empty truth, whatever
    was predicted, or with ``ignore_empty=False`` gives 1 to two empty masks.

    Args:
        prediction: mask, inside where not 0.
        truth: mask of the same shape.

    Returns:
        A value in [0, 1], or NaN.

    Raises:
        InputError: when the shapes differ, or a mask has NaN.
    """
    first, second = _two_masks(prediction, truth)
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else math.nan


def hausdorff95(prediction: Tensor, truth: Tensor, *, spacing: Sequence[float]) -> float:
    """Return the symmetric 95 % Hausdorff distance between the surfaces of two masks, in mm.

    The larger of two numbers: the 95 % quantile of the distances from each surface voxel of one mask
    to the nearest of the other, and the same the other way round, as
    :func:`monai.metrics.compute_hausdorff_distance` has it. (That one transforms whole volumes, in many
    times their memory. Tools that pool both directions before the quantile give smaller numbers.)
    Surface voxels are those with a face neighbour outside the mask or outside the image.

    Args:
        prediction: mask ``(X, Y, Z)`` or ``(H, W)``, inside where not 0.
        truth: mask of the same shape.
        spacing: mm per axis, in the order of the axes.

    Returns:
        mm; NaN when one mask or both are empty, where no distance is defined. How often that
        happens belongs beside a mean of this number.

    Raises:
        InputError: when the shapes differ, a mask has NaN, it is not 2D or 3D, or the spacing does
            not fit.
    """
    first, second = _two_masks(prediction, truth)
    if first.ndim not in (2, 3):
        raise InputError(f"Masks must be (H, W) or (X, Y, Z), got {tuple(first.shape)}.")
    mm = checked_spacing(spacing, first.ndim)
    if not first.any() or not second.any():
        return math.nan
    surfaces = []
    for mask in (first.numpy(), second.numpy()):
        box = ndimage.find_objects(mask.view(np.int8))[0]
        own = mask[box]
        surfaces.append(
            (np.argwhere(own & ~ndimage.binary_erosion(own)) + [side.start for side in box]) * mm
        )
    distances = [
        np.quantile(KDTree(there).query(here)[0], 0.95)
        for here, there in (surfaces, surfaces[::-1])
    ]
    return float(max(distances))
