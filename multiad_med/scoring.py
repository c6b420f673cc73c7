"""From map to score, and from held-out normal units to thresholds, p-values and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import torch
from torch import Tensor

from multiad_med.utils.errors import InputError

__all__ = [
    "LargestValues",
    "Level",
    "NormalScores",
    "image_scores",
    "joint_map",
    "joint_probability",
    "largest_in_foreground",
    "score_of_probability",
    "threshold_at_false_positive_rate",
    "unit_name",
    "units_needed",
]


def largest_in_foreground(
    maps: Tensor, foreground: Tensor | None = None, *, fraction: float = 0.0
) -> list[Tensor]:
    """Return the values that an image's score is the mean of, largest first.

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


def joint_map(maps: Tensor) -> Tensor:
    """Join a calibrated map with what was found of the whole image; see :class:`MultiAD`.

    Both are ``m / (m + t)``; their m are added, which is a Noisy-OR where m is a hazard.

    Args:
        maps: ``(B, 1, H, W)``, returned as it is, or ``(B, 2, H, W)``, the map and the whole
            image's part, in [0, 1).

    Returns:
        ``(B, 1, H, W)`` in [0, 1).
    """
    if maps.shape[1] == 1:
        return maps
    times = (maps / (1 - maps).clamp_min(torch.finfo(torch.float32).eps)).sum(dim=1, keepdim=True)
    return times / (1 + times)


def image_scores(
    maps: Tensor, foreground: Tensor | None = None, *, fraction: float = 0.0
) -> Tensor:
    """Return each image's score: the mean of its map's largest values inside the foreground.

    Arguments and errors are those of :func:`largest_in_foreground`; a second channel of the maps is
    counted as :func:`joint_map` tells.

    Returns:
        Scores ``(B,)``; 0 for an image without foreground.
    """
    means = [
        values.mean() if values.numel() else maps.new_zeros(())
        for values in largest_in_foreground(joint_map(maps), foreground, fraction=fraction)
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
        """Add values of any shape."""
        values = values.detach().flatten().float().cpu()
        merged = torch.cat([self.values, values])
        self.values = merged.topk(min(self.count, merged.numel())).values


def _allowed(rate: float, total: int) -> int:
    """Return how many of ``total`` normal units and a new one may be flagged at a rate."""
    return math.floor(rate * (total + 1) + 1e-9)


def units_needed(rate: float) -> int:
    """Return how many held-out normal units a verdict at a rate needs: ceil(1 / rate) - 1."""
    return math.ceil(1 / rate - 1 - 1e-9)


def threshold_at_false_positive_rate(largest: Tensor, total: int, rate: float) -> float:
    """Return the lowest threshold that a new normal value reaches with a probability of at most ``rate``.

    A value is flagged when it is at least the threshold. With k = floor(rate * (total + 1)) the
    threshold lies just above the k-th largest value, so that at most k - 1 of the values reach it. The
    conformal p-value of a flagged value is then at most k / (total + 1) (Vovk et al., Algorithmic
    Learning in a Random World, 2005). Where k is 0 (too few normal values for so low a rate) it lies
    just above the largest.

    Args:
        largest: the largest of the values, in descending order; k of them, or all.
        total: number of values they come from.
        rate: in (0, 1).

    Raises:
        InputError: when the rate is not in (0, 1), or there are no values.
    """
    _check_rate("The false-positive rate", rate)
    if total == 0 or largest.numel() == 0:
        raise InputError("There are no normal values to set a threshold from.")
    above = largest[min(max(_allowed(rate, total), 1), largest.numel()) - 1]
    return float(torch.nextafter(above, torch.tensor(math.inf)))


def _check_rate(name: str, rate: float) -> None:
    if not 0 < rate < 1:
        raise InputError(f"{name} must lie in (0, 1), got {rate}.")


class Level(StrEnum):
    """What has a score and a threshold."""

    SLICE = "slice"
    """An axial slice, a B-scan, or an image."""
    VOLUME = "volume"
    """A study: the highest of its slices."""
    PATIENT = "patient"
    """A subject: the highest of its studies."""


_MOST_SCORES = 10_000


def unit_name(level: Level, domain: str) -> str:
    """Return the name of a level's unit; an image of a product is slice and volume at once."""
    images = domain in ("industrial", "generalist")
    return "image" if images and level is not Level.PATIENT else str(level)


def joint_probability(score: float) -> float:
    """Return the Noisy-OR of all experts' probabilities, from a value of the calibrated map or a score.

    The map is ``s = m / (m + t)``; hazards add up to m, so that ``P = 1 - 2^(-m / t)``: 0.5 at the pixel
    threshold t. In float32 it is 1 from ``m / t`` of about 25 on, so nothing is ranked by it.

    Args:
        score: value in [0, 1).
    """
    return 1.0 - 2.0 ** (-score / (1.0 - score)) if score < 1 else 1.0


def score_of_probability(probability: float) -> float:
    """Return the score whose :func:`joint_probability` this is; in [0, 1]."""
    if probability >= 1:
        return 1.0
    times = -math.log2(1.0 - probability)
    return times / (1.0 + times)


@dataclass(frozen=True)
class NormalScores:
    """Scores of held-out normal units of one level: what a new unit's score is compared with.

    A unit is anomalous exactly if its conformal p-value is at most the rate. If new normal units are
    exchangeable with the held-out ones, at most that part of them is called anomalous, whatever the
    distribution of the scores.

    Args:
        scores: of the held-out units, in any order; kept in descending order, in float32. Of more than
            10,000 a random sample of that size is kept, which is as valid.
        rate: false-positive rate of the verdict.
        approximate: why the p-values hold only approximately; empty where they hold exactly.

    Raises:
        InputError: when the rate is not in (0, 1), or a score is not finite.
    """

    scores: tuple[float, ...]
    rate: float
    approximate: str = ""
    _descending: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_rate("The false-positive rate", self.rate)
        values = torch.tensor(self.scores, dtype=torch.float32)
        if not values.isfinite().all():
            raise InputError("Scores of normal units must be finite numbers.")
        if len(values) > _MOST_SCORES:
            chosen = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
            values = values[chosen[:_MOST_SCORES]]
        object.__setattr__(self, "_descending", values.sort(descending=True).values)
        object.__setattr__(self, "scores", tuple(self._descending.tolist()))

    @property
    def units(self) -> int:
        """Number of held-out normal units."""
        return len(self.scores)

    @property
    def threshold(self) -> float | None:
        """The lowest score that is anomalous; None where the rate is out of reach."""
        if not _allowed(self.rate, self.units):
            return None
        return threshold_at_false_positive_rate(self._descending, self.units, self.rate)

    def _at_least(self, scores: Tensor) -> Tensor:
        """Count the normal units that score at least as high as each score, in float32 as theirs."""
        ascending = self._descending.flip(0)
        return self.units - torch.searchsorted(ascending, scores.float().contiguous())

    def p_values(self, scores: Tensor) -> Tensor:
        """Return conformal p-values: (1 + number of normal units at least as high) / (n + 1)."""
        return (1 + self._at_least(scores)).double() / (self.units + 1)

    def p_value(self, score: float) -> float:
        """Return the conformal p-value of one score, in (0, 1]."""
        return float(self.p_values(torch.tensor([score]))[0])

    def flagged(self, scores: Tensor) -> Tensor:
        """Return which scores are anomalous: none where the rate is out of reach."""
        return 1 + self._at_least(scores) <= _allowed(self.rate, self.units)

    def anomalous(self, score: float) -> bool | None:
        """Return whether one score is anomalous; None where the rate is out of reach."""
        if not _allowed(self.rate, self.units):
            return None
        return bool(self.flagged(torch.tensor([score]))[0])

    def no_verdict(self, unit: str) -> str:
        """Return why there is no verdict at this rate, and what allows one; empty where there is one.

        Args:
            unit: name of the level's unit; see :func:`unit_name`.
        """
        if _allowed(self.rate, self.units):
            return ""
        needed = units_needed(self.rate)
        if not self.units:
            return (
                f"no verdict: the model has no held-out normal {unit}s; {needed} are needed for "
                f"{100 * self.rate:.3g} %"
            )
        normals = (
            f"1 normal {unit} allows" if self.units == 1 else f"{self.units} normal {unit}s allow"
        )
        return (
            f"no verdict: {normals} no rate below "
            f"{100 / (self.units + 1):.2g} %; {needed} are needed for {100 * self.rate:.3g} %"
        )

    def verdict(self, score: float, unit: str) -> str:
        """Return ``anomalous``, ``normal``, or why there is no verdict; see :meth:`no_verdict`."""
        anomalous = self.anomalous(score)
        if anomalous is None:
            return self.no_verdict(unit)
        return "anomalous" if anomalous else "normal"

    def as_json(self) -> dict[str, Any]:
        """Return what a model's card keeps."""
        return {"rate": self.rate, "scores": list(self.scores), "approximate": self.approximate}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the scores that :meth:`as_json` gave."""
        return cls(tuple(content["scores"]), content["rate"], content["approximate"])


def decision(scores: Mapping[str, Any]) -> str:
    """Return in words the volume's score, p-value, threshold, and verdict or why there is none."""
    if not scores:
        return "no scores beside the map"
    threshold = scores["thresholds"]["volume_score"]
    told = (
        f"score {float(scores['volume_score']):.3f}, p-value {float(scores['volume_p_value']):.3g}"
    )
    if threshold is not None:
        told += f", threshold {float(threshold):.3f}"
    return f"{told}: {scores['verdict']}"
