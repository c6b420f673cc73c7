"""From map to score and from held-out normal images to thresholds: pure functions on tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multiad_med.utils.errors import InputError

__all__ = [
    "LargestValues",
    "image_scores",
    "largest_in_foreground",
    "threshold_at_false_positive_rate",
]


def largest_in_foreground(
    maps: Tensor, foreground: Tensor | None = None, *, fraction: float = 0.0
) -> list[Tensor]:
    """The values that an image's score is the mean of, largest first.

    Args:
        maps: anomaly maps ``(B, 1, H, W)``.
        foreground: masks of the same shape, positive inside; without it every pixel counts.
        fraction: part of the foreground pixels that is taken, in [0, 1]; at least one pixel is, so
            0 is the maximum (paper Eq. 15).

    Returns:
        One tensor ``(k,)`` per image, empty for an image without foreground.

    Raises:
        InputError: when ``fraction`` is not in [0, 1], or the shapes differ.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction must lie in [0, 1], got {fraction}.")
    if foreground is not None and foreground.shape != maps.shape:
        raise InputError(
            f"maps {tuple(maps.shape)} and foreground {tuple(foreground.shape)} differ in shape."
        )
    largest = []
    for index, image in enumerate(maps):
        values = image.flatten() if foreground is None else image[foreground[index] > 0]
        count = max(1, math.ceil(fraction * values.numel()))
        largest.append(values.topk(min(count, values.numel())).values)
    return largest


def image_scores(
    maps: Tensor, foreground: Tensor | None = None, *, fraction: float = 0.0
) -> Tensor:
    """Score of each image: the mean of its map's largest values inside the foreground.

    Arguments and errors are those of :func:`largest_in_foreground`.

    Returns:
        Scores ``(B,)``; 0 for an image without foreground.
    """
    means = [
        values.mean() if values.numel() else maps.new_zeros(())
        for values in largest_in_foreground(maps, foreground, fraction=fraction)
    ]
    return torch.stack(means) if means else maps.new_zeros(0)


class LargestValues:
    """The largest values of a stream, in memory that depends on how many are asked for.

    Args:
        count: how many values to keep.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.values = torch.empty(0)

    def update(self, values: Tensor) -> None:
        """Take in values of any shape."""
        values = values.detach().flatten().float().cpu()
        merged = torch.cat([self.values, values])
        self.values = merged.topk(min(self.count, merged.numel())).values


def threshold_at_false_positive_rate(largest: Tensor, total: int, rate: float) -> float:
    """The lowest threshold that flags at most a fraction ``rate`` of normal values.

    A value is flagged when it is at least the threshold. With k = floor(rate * total) the threshold
    is the k-th largest value, or just above it where ties would flag more. Where k is 0 (too few
    normal values for so low a rate) it lies just above the largest.

    Args:
        largest: the largest of the values, in descending order; k + 1 of them, or all.
        total: number of values they come from.
        rate: in (0, 1).

    Raises:
        InputError: when the rate is not in (0, 1), or there are no values.
    """
    if not 0 < rate < 1:
        raise InputError(f"The false-positive rate must lie in (0, 1), got {rate}.")
    if total == 0 or largest.numel() == 0:
        raise InputError("There are no normal values to set a threshold from.")
    k = math.floor(rate * total)
    above = largest[k] if k < largest.numel() else largest[-1]
    if k > 0 and largest[k - 1] > above:
        return float(largest[k - 1])
    return float(torch.nextafter(above, torch.tensor(math.inf)))
