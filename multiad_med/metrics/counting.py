"""Scores as arrays, and exact counts of scores above thresholds without sorting all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiad_med.utils.errors import InputError

__all__ = ["as_anomalous", "as_scores", "check_same_shape", "count_from", "ordered_keys"]

MOST_BINS_LOG2 = 22  # 32 MiB of counts
BLOCK = 1 << 23  # scores, for some 140 MB of intermediate arrays at a time
FEWEST_SCORES = 1 << 17  # below, a sort is as fast


def check_same_shape(scores: Tensor | NDArray[Any], labels: Tensor | NDArray[Any]) -> None:
    """Refuse scores and labels of different shapes.

    Raises:
        InputError: when the shapes differ.
    """
    if scores.shape != labels.shape:
        raise InputError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} differ in shape; every "
            "score needs one label. Resize or squeeze one of the two."
        )


def as_scores(scores: Tensor | NDArray[Any]) -> NDArray[Any]:
    """Return a flat float32 or float64 array of finite scores, from any device, no value rounded.

    Raises:
        InputError: when a score is NaN or infinite.
    """
    tensor = torch.as_tensor(scores).detach().as_subclass(Tensor).cpu().reshape(-1)
    if not tensor.is_floating_point():
        tensor = tensor.double()
    elif tensor.dtype.itemsize < 4:
        tensor = tensor.float()
    array = tensor.numpy()
    finite = np.isfinite(array)
    if not finite.all():
        raise InputError(
            f"{int((~finite).sum())} scores are NaN or infinite, of {array.size}; scores must be "
            "finite. Look for a division by zero or an overflow in what computes them."
        )
    return array


def as_anomalous(labels: Tensor | NDArray[Any]) -> NDArray[np.bool_]:
    """Return a flat boolean array, true where a label is not 0.

    Raises:
        InputError: when a label is NaN.
    """
    tensor = torch.as_tensor(labels).detach().as_subclass(Tensor).cpu().reshape(-1)
    if tensor.is_floating_point():
        array = (tensor.float() if tensor.dtype.itemsize < 4 else tensor).numpy()
        missing = int(np.isnan(array).sum())
        if missing:
            raise InputError(
                f"{missing} labels are NaN, of {array.size}; a label is 0 (normal) or not 0 "
                "(anomalous). Read or resample the mask without filling with NaN."
            )
    else:
        array = tensor.numpy()
    return array if array.dtype == bool else array != 0


def ordered_keys(scores: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned integers of the scores' width in the scores' order, both zeros alike.

    A positive float's bits, read as an integer, grow with it; a negative one's fall.
    """
    width = 8 * scores.itemsize
    signed = (scores + scores.dtype.type(0)).view(f"i{scores.itemsize}")
    flips = signed >> (width - 1)
    flips |= np.iinfo(signed.dtype).min
    flips ^= signed
    return flips.view(f"u{scores.itemsize}")


def count_from(
    scores: NDArray[Any], thresholds: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many scores exceed each threshold, and how many reach it. Exact.

    Scores are counted in bins of their upper bits; only those that share a bin with a threshold are
    sorted. With few thresholds that is several times as fast as one sort of all scores.

    Args:
        scores: finite floats ``(N,)``.
        thresholds: ``(K,)``, ascending and distinct, of the same type.

    Returns:
        Numbers of scores ``>`` and ``>=`` the thresholds, ``(K,)`` each.
    """
    bins_log2 = (8 * thresholds.size).bit_length()
    if scores.size < FEWEST_SCORES or bins_log2 > MOST_BINS_LOG2 + 2 or not thresholds.size:
        near, beyond = np.sort(scores), np.zeros(thresholds.size, np.int64)
    else:
        near, beyond = _near_and_beyond(scores, thresholds, min(bins_log2, MOST_BINS_LOG2))
    above = beyond + (near.size - np.searchsorted(near, thresholds, "right"))
    return above, beyond + (near.size - np.searchsorted(near, thresholds, "left"))


def _near_and_beyond(
    scores: NDArray[Any], thresholds: NDArray[Any], bins_log2: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return sorted scores from the thresholds' bins, and how many others exceed each threshold."""
    marks = ordered_keys(thresholds)
    lowest, highest = int(marks[0]), int(marks[-1])
    bits = max(0, (highest - lowest).bit_length() - bins_log2)
    number = (highest >> bits) - (lowest >> bits) + 1
    integer = marks.dtype.type
    shift, first, last = integer(bits), integer(lowest >> bits), integer(highest >> bits)

    places = ((marks >> shift) - first).astype(np.intp)
    occupied = np.zeros(number + 1, bool)
    occupied[places] = True
    counts, near, over = np.zeros(number + 1, np.int64), [], 0
    for start in range(0, scores.size, BLOCK):
        block = scores[start : start + BLOCK]
        bins = ordered_keys(block)
        bins >>= shift
        over += int(np.count_nonzero(bins > last))
        # Unsigned differences wrap: bins below the first are large too, and share the one at the end.
        bins -= first
        index = np.minimum(bins, integer(number), out=bins).astype(np.intp)
        counts += np.bincount(index, minlength=number + 1)
        near.append(block.compress(occupied.take(index)))
    counts[occupied] = 0
    counts[number] = over
    return np.sort(np.concatenate(near)), np.cumsum(counts[::-1])[::-1][places]
