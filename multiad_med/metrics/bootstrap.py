"""Confidence intervals by drawing subjects with replacement, and differences of two models.

Slices, lesions and pixels of one subject are alike, so the subject is what is drawn, with all that
belongs to it (cluster bootstrap: Davison and Hinkley 1997, ch. 2.4 and 3.8; for imaging El Jurdi et
al. 2023, arXiv 2307.10926). A resample is a row of weights, how often each subject was drawn; every
metric here takes all rows at once and gives one number for each, NaN where it is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multiad_med.metrics.counting import as_anomalous, as_scores, check_same_shape
from multiad_med.metrics.froc import FROC_RATES, froc_counts, sensitivity_at_rates
from multiad_med.utils.errors import InputError

__all__ = [
    "Estimate",
    "bootstrap_froc",
    "bootstrap_mean",
    "bootstrap_ranking",
    "check_weights",
    "from_zero",
    "in_chunks",
    "interval",
    "joined",
    "paired_difference",
    "ranking_metrics",
    "resamples",
]

_CHUNK = 2**21  # numbers per temporary array, of which there are some ten: 16 MiB each

Metric = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Estimate:
    """A metric with its percentile interval; NaN where undefined."""

    value: float
    low: float
    high: float


def resamples(subjects: int, *, count: int = 1000, seed: int = 0) -> Tensor:
    """Return how often each of S subjects is drawn when S are drawn with replacement.

    Args:
        subjects: number S of subjects.
        count: number of resamples.
        seed: the same seed gives the same draws.

    Returns:
        int64 ``(count, S)``; each row adds up to S.

    Raises:
        InputError: when either number is below 1.
    """
    if subjects < 1 or count < 1:
        raise InputError(
            f"At least one subject and one resample are needed, got {subjects} and {count}."
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(subjects, (count, subjects), generator=generator)
    return torch.zeros_like(drawn).scatter_add_(1, drawn, torch.ones_like(drawn))


def interval(values: Tensor, estimate: float, *, subjects: int, level: float = 0.95) -> Estimate:
    """Return the percentile interval of a metric over resamples.

    Resamples without a value, as where none of a class was drawn, are left out. The bounds are NaN where
    that is more than half of them, and for a single subject, whose resamples are all the same. Over few
    subjects (below 20, say) percentile intervals are too narrow.

    Args:
        values: ``(count,)``, the metric on each resample.
        estimate: the metric on the subjects themselves.
        subjects: number of subjects that were drawn from.
        level: coverage, in (0, 1).

    Raises:
        InputError: when there are no values, a number is out of range, or the values are not a vector.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie in (0, 1), got {level}.")
    if values.ndim != 1 or not len(values):
        raise InputError(
            f"values must be a vector of one number per resample, got shape {tuple(values.shape)}."
        )
    if subjects < 1:
        raise InputError(f"subjects must be 1 or more, got {subjects}.")
    defined = values[~values.isnan()].double()
    if subjects == 1 or 2 * len(defined) < len(values):
        return Estimate(float(estimate), math.nan, math.nan)
    tail = (1 - level) / 2
    low, high = np.quantile(defined.numpy(), [tail, 1 - tail]).tolist()
    return Estimate(float(estimate), low, high)


def paired_difference(
    a: Metric,
    b: Metric,
    weights: Tensor,
    *,
    subjects: tuple[Sequence[str], Sequence[str]],
    level: float = 0.95,
) -> tuple[Estimate, float]:
    """Return the difference a - b of two models' metric on the same subjects, and its p value.

    Both see the same resamples, so that what makes a subject hard for both cancels.

    Args:
        a: function from weights ``(n, S)`` to one model's metric ``(n,)``.
        b: the same of the other model.
        weights: of :func:`resamples`.
        subjects: the subjects of either model, in the order of the columns.
        level: coverage of the interval, in (0, 1).

    Returns:
        The difference with its percentile interval, and the two-sided p value of no difference: twice
        the smaller share of resamples on one side of 0, where the estimate itself counts as one more
        (Davison and Hinkley 1997, eq. 4.11), so never 0. It is NaN where the interval is.

    Raises:
        InputError: when the subjects of the two differ, repeat, or do not fit the weights.
    """
    first, second = (list(names) for names in subjects)
    if first != second:
        only = sorted(set(first) ^ set(second))
        raise InputError(
            "The two models must be evaluated on the same subjects in the same order; "
            + (f"{len(only)} are of one only, as {only[:5]}." if only else "the order differs.")
        )
    if len(set(first)) != len(first):
        raise InputError("A subject appears twice; add up what belongs to one subject first.")
    check_weights(weights, len(first))
    itself = torch.ones(1, len(first), dtype=torch.int64)
    values = a(weights) - b(weights)
    estimate = interval(values, float(a(itself) - b(itself)), subjects=len(first), level=level)
    if math.isnan(estimate.low):
        return estimate, math.nan
    defined = values[~values.isnan()]
    below, above = (1 + int(side.sum()) for side in (defined <= 0, defined >= 0))
    return estimate, min(1.0, 2 * min(below, above) / (1 + len(defined)))


def check_weights(weights: Tensor, subjects: int) -> None:
    """Refuse weights that are not ``(count, subjects)``."""
    if weights.ndim != 2 or weights.shape[1] != subjects or not len(weights):
        raise InputError(
            f"weights must be (resamples, {subjects}), a column per subject, got "
            f"{tuple(weights.shape)}; see resamples."
        )


def _check_index(subjects: Tensor, items: int, total: int) -> Tensor:
    index = torch.as_tensor(subjects).cpu()
    if index.shape != (items,) or index.is_floating_point():
        raise InputError(
            f"subjects must be a whole number per item, shape ({items},), got {index.dtype} "
            f"{tuple(index.shape)}."
        )
    if items and not 0 <= int(index.min()) <= int(index.max()) < total:
        raise InputError(
            f"subjects must be columns of the weights, 0 to {total - 1}, got {int(index.min())} to "
            f"{int(index.max())}."
        )
    return index.long()


def in_chunks(weights: Tensor, columns: int) -> Iterator[Tensor]:
    """Yield rows of the weights, so few at once that arrays of so many columns stay small."""
    yield from weights.split(max(1, _CHUNK // max(1, columns)))


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the metrics of all chunks in one vector each."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def from_zero(curves: Tensor) -> Tensor:
    """Return curves ``(C, T)`` with a first point 0, where nothing is flagged."""
    return torch.nn.functional.pad(curves, (1, 0))


def ranking_metrics(true_positives: Tensor, false_positives: Tensor) -> dict[str, Tensor]:
    """Return metrics of counts ``(C, T)`` at or above thresholds, the highest threshold first."""
    positives, negatives = true_positives[:, -1], false_positives[:, -1]
    flagged = true_positives + false_positives
    area = torch.trapezoid(from_zero(true_positives), from_zero(false_positives))
    steps = true_positives.diff(dim=1, prepend=torch.zeros_like(true_positives[:, :1]))
    # Where nothing is flagged yet there is no step either, and the precision does not matter.
    precision = true_positives / flagged.clamp(min=1)
    f1 = (2 * true_positives / (flagged + positives[:, None])).amax(1)
    return {
        "auroc": area / (positives * negatives),
        "average_precision": (precision * steps).sum(1) / positives,
        "f1_max": f1.masked_fill(positives == 0, math.nan),
    }


def bootstrap_ranking(
    scores: Tensor, labels: Tensor, subjects: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Return AUROC, average precision and largest F1 of items on each resample of their subjects. Exact.

    The numbers equal those of :class:`~multiad_med.metrics.Ranking` over items repeated as often as
    their subject was drawn, ties included. For items that fit in memory (slices, scans, patients); for
    pixels see :class:`~multiad_med.metrics.SubjectHistograms`.

    Args:
        scores: ``(N,)``, the larger the more anomalous.
        labels: ``(N,)``, anomalous where not 0.
        subjects: whole numbers ``(N,)``, each item's column of the weights.
        weights: ``(count, S)`` of :func:`resamples`.

    Returns:
        ``auroc``, ``average_precision`` and ``f1_max``, float64 ``(count,)`` each; NaN where a class
        that the metric needs was not drawn.

    Raises:
        InputError: when shapes differ, there are no items, a score is not finite, or a subject has no
            column.
    """
    check_same_shape(scores, labels)
    if scores.ndim != 1 or not len(scores):
        raise InputError(
            f"scores must be a vector of one number or more, got shape {tuple(scores.shape)}."
        )
    check_weights(weights, weights.shape[-1])
    index = _check_index(subjects, len(scores), weights.shape[1])
    ordered, order = torch.from_numpy(as_scores(scores)).sort(descending=True)
    positive = torch.from_numpy(as_anomalous(labels))[order].double()
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    parts = []
    for rows in in_chunks(weights, len(scores)):
        drawn = rows[:, index[order]].double()
        parts.append(
            ranking_metrics(
                (drawn * positive).cumsum(1)[:, last], (drawn * (1 - positive)).cumsum(1)[:, last]
            )
        )
    return joined(parts)


def bootstrap_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over subjects of a number that each has, such as Dice, on each resample.

    Args:
        values: ``(S,)``; a subject with NaN is left out of every mean.
        weights: ``(count, S)`` of :func:`resamples`.

    Returns:
        float64 ``(count,)``; NaN where only subjects without a number were drawn.

    Raises:
        InputError: when the shapes do not fit.
    """
    if values.ndim != 1:
        raise InputError(f"values must be a number per subject, got shape {tuple(values.shape)}.")
    check_weights(weights, len(values))
    drawn = weights.double()
    return (drawn @ values.double().nan_to_num(nan=0)) / (drawn @ (~values.isnan()).double())


def bootstrap_froc(
    scores: Sequence[Tensor],
    false_positives: Sequence[Tensor],
    thresholds: Tensor,
    subjects: Tensor,
    weights: Tensor,
    *,
    volumes: Sequence[Tensor] | None = None,
    size_range: tuple[float, float] | None = None,
    rates: Sequence[float] = FROC_RATES,
) -> Tensor:
    """Return the FROC score on each resample of subjects; see :func:`~multiad_med.metrics.froc`.

    Args:
        scores: as there.
        false_positives: as there.
        thresholds: as there.
        volumes: as there.
        size_range: as there.
        rates: as there.
        subjects: whole numbers ``(N,)``, each scan's column of the weights.
        weights: ``(count, S)`` of :func:`resamples`.

    Returns:
        float64 ``(count,)``; NaN where no lesion was drawn.

    Raises:
        InputError: as there, or when a subject has no column.
    """
    check_weights(weights, weights.shape[-1])
    index = _check_index(subjects, len(scores), weights.shape[1])
    counts = froc_counts(
        scores, false_positives, thresholds, volumes=volumes, size_range=size_range
    )
    parts = []
    for rows in in_chunks(weights, len(rates) * len(thresholds)):
        drawn = rows[:, index].double()
        at_rates = sensitivity_at_rates(
            drawn @ counts.found,
            drawn @ counts.lesions,
            drawn @ counts.false_positives,
            drawn.sum(1),
            rates=rates,
        )
        parts.append(at_rates.mean(1))
    return torch.cat(parts)
