"""Order statistics of large volumes, exact, at the cost of one pass where values are integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["quantiles"]

_COUNTABLE = (np.uint8, np.int8, np.int16)


def quantiles(values: torch.Tensor, fractions: Sequence[float]) -> list[float]:
    """Return the ``round(q * n)``-th smallest of ``n`` values, for each fraction ``q``.

    No interpolation, so that a quantile is always a value that occurs, on any number of voxels
    (``torch.quantile`` stops at 16 million).

    Args:
        values: any shape, at least one value.
        fractions: in [0, 1].

    Raises:
        InputError: when there are no values.
    """
    count = values.numel()
    if count == 0:
        raise InputError("No values to take quantiles of: the foreground is empty.")
    flat = plain_tensor(values)
    ranks = [max(1, round(q * count)) for q in fractions]
    # The order of the values does not matter; the order in memory decides the speed.
    array = flat.numpy(force=True).ravel(order="K")
    lowest = array.min()
    equal = array == lowest
    darkest = int(np.count_nonzero(equal))
    if max(ranks) <= darkest:  # as in air around a head
        return [float(lowest)] * len(ranks)
    if 4 * darkest > count:  # background, which need not be sorted
        above = _ranked(array[~equal], [max(1, rank - darkest) for rank in ranks])
        return [
            float(lowest) if rank <= darkest else value
            for rank, value in zip(ranks, above, strict=True)
        ]
    return _ranked(array, ranks)


def _ranked(array: NDArray[Any], ranks: Sequence[int]) -> list[float]:
    """Return the values that have these ranks, of which the first is 1."""
    if array.dtype in _COUNTABLE:
        low = int(np.iinfo(array.dtype).min)
        unsigned = array.view(np.dtype(f"u{array.dtype.itemsize}"))
        counts = np.bincount(unsigned)
        if low < 0:
            counts = np.pad(counts, (0, -2 * low - len(counts)))
            counts = np.concatenate([counts[-low:], counts[:-low]])
        return [float(np.searchsorted(counts.cumsum(), rank) + low) for rank in ranks]
    ordered = np.partition(array, [rank - 1 for rank in ranks])
    return [float(ordered[rank - 1]) for rank in ranks]
