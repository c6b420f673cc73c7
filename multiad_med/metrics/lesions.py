"""Lesion by lesion in one scan: what is found at which threshold, and what is a false alarm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from multiad_med.metrics.counting import as_anomalous, as_scores
from multiad_med.metrics.overlap import checked_spacing
from multiad_med.utils.errors import InputError

__all__ = [
    "Lesions",
    "checked_thresholds",
    "false_positive_components",
    "lesion_scores",
    "lesions",
]


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of one scan.

    Attributes:
        labels: int32 of the mask's shape, 0 outside and 1 to L inside the lesions.
        voxels: int64 ``(L,)``, voxels of each.
        volumes: float64 ``(L,)``, mm3 of each (mm2 of a 2D mask), or voxels where no spacing was given.
    """

    labels: Tensor
    voxels: Tensor
    volumes: Tensor


def _mask(mask: Tensor, shape: tuple[int, ...], name: str) -> np.ndarray:
    if tuple(mask.shape) != shape:
        raise InputError(
            f"The map {shape} and the {name} {tuple(mask.shape)} differ in shape; bring both to one "
            "grid first."
        )
    return as_anomalous(mask).reshape(shape)


def _spatial(shape: Sequence[int], name: str) -> tuple[int, ...]:
    if len(shape) not in (2, 3):
        raise InputError(f"A {name} must be (H, W) or (X, Y, Z), got {tuple(shape)}.")
    return tuple(shape)


def _map(anomaly_map: Tensor) -> np.ndarray:
    return as_scores(anomaly_map).reshape(_spatial(anomaly_map.shape, "map"))


def checked_thresholds(thresholds: Tensor) -> Tensor:
    """Return the thresholds, if they are a vector of one or more finite numbers.

    Raises:
        InputError: when they are not.
    """
    values = torch.as_tensor(thresholds).detach().cpu()
    if values.ndim != 1 or not len(values) or not values.isfinite().all():
        raise InputError(
            f"thresholds must be a vector of one or more finite numbers, got {values}; see "
            "pooled_scans."
        )
    return values


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label regions connected through faces, edges or corners: 26 neighbours in 3D, 8 in 2D."""
    return ndimage.label(mask, structure=np.ones((3,) * mask.ndim))


def lesions(truth: Tensor, *, spacing: Sequence[float] | None = None) -> Lesions:
    """Return the connected components of a lesion mask, 26-connected in 3D and 8-connected in 2D.

    Args:
        truth: ``(X, Y, Z)`` or ``(H, W)``, lesion where not 0.
        spacing: mm per axis, in the order of the axes; without it volumes are numbers of voxels.

    Raises:
        InputError: when the mask is not 2D or 3D, has NaN, or the spacing does not fit.
    """
    shape = _spatial(truth.shape, "lesion mask")
    labels, count = _components(as_anomalous(truth).reshape(shape))
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    size = math.prod(checked_spacing(spacing, len(shape))) if spacing is not None else 1.0
    return Lesions(
        torch.from_numpy(labels), torch.from_numpy(voxels), torch.from_numpy(voxels * size)
    )


def lesion_scores(
    anomaly_map: Tensor,
    targets: Lesions,
    *,
    overlap: float = 0.1,
    foreground: Tensor | None = None,
) -> Tensor:
    """Return the highest threshold at which each lesion is detected.

    A lesion is detected at a threshold when at least the fraction ``overlap`` of its voxels is at or
    above it. So its score is the k-th largest value inside, k = ceil(overlap * voxels): one number,
    valid for every threshold.

    Args:
        anomaly_map: ``(X, Y, Z)`` or ``(H, W)``, the larger the more anomalous.
        targets: the lesions of that scan.
        overlap: in (0, 1].
        foreground: mask of the same shape. Voxels outside count in a lesion's size but are never
            flagged.

    Returns:
        ``(L,)`` in the map's dtype; -inf for a lesion with too few voxels inside the foreground.

    Raises:
        InputError: when the overlap is not in (0, 1], shapes differ, or the map is not finite.
    """
    if not 0 < overlap <= 1:
        raise InputError(f"overlap must lie in (0, 1], got {overlap}.")
    values, labels = _map(anomaly_map), targets.labels.numpy()
    inside = _mask(targets.labels, values.shape, "lesion mask")
    flagged = values[inside]
    if foreground is not None:
        allowed = _mask(foreground, values.shape, "foreground")[inside]
        flagged = np.where(allowed, flagged, -np.inf).astype(values.dtype)
    order = np.lexsort((-flagged, labels[inside]))
    sizes = targets.voxels.numpy()
    # Rounded, as 0.07 * 100 is a hair above 7.
    needed = np.ceil(np.round(overlap * sizes, 6)).astype(int).clip(min=1)
    return torch.from_numpy(flagged[order][np.cumsum(sizes) - sizes + needed - 1])


def false_positive_components(
    anomaly_map: Tensor,
    truth: Tensor,
    thresholds: Tensor,
    *,
    foreground: Tensor | None = None,
) -> Tensor:
    """Return the number of false alarms of one scan at each threshold.

    A false alarm is a component of {map >= threshold}, 26-connected in 3D and 8-connected in 2D,
    that contains no lesion voxel. The count may fall as the threshold falls, because components
    merge with each other and with lesions.

    Args:
        anomaly_map: ``(X, Y, Z)`` or ``(H, W)``, the larger the more anomalous.
        truth: mask of the same shape, lesion where not 0.
        thresholds: ``(T,)`` in any order.
        foreground: mask of the same shape; nothing outside is flagged.

    Returns:
        int64 ``(T,)``, in the order of the thresholds.

    Raises:
        InputError: when shapes differ, the map is not finite, or the thresholds are no finite vector.
    """
    values = _map(anomaly_map)
    lesion = _mask(truth, values.shape, "lesion mask")
    levels = checked_thresholds(thresholds).double().numpy()
    allowed = None if foreground is None else _mask(foreground, values.shape, "foreground")
    counts = np.zeros(len(levels), dtype=np.int64)
    for index in np.argsort(levels):
        flagged = values >= levels[index]
        if allowed is not None:
            flagged &= allowed
        box = ndimage.find_objects(flagged.view(np.int8))
        if not box:
            break
        # What a higher threshold flags lies within the box of this one.
        values, lesion, flagged = values[box[0]], lesion[box[0]], flagged[box[0]]
        allowed = None if allowed is None else allowed[box[0]]
        labels, count = _components(flagged)
        with_lesion = np.zeros(count + 1, dtype=bool)
        with_lesion[labels[lesion]] = True
        counts[index] = count - with_lesion[1:].sum()
    return torch.from_numpy(counts)
