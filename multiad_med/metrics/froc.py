"""Sensitivity for lesions against false positives per scan (FROC) over many scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multiad_med.metrics.counting import as_scores
from multiad_med.metrics.lesions import checked_thresholds
from multiad_med.utils.errors import InputError

__all__ = [
    "FROC_RATES",
    "Froc",
    "FrocCounts",
    "candidate_thresholds",
    "froc",
    "froc_counts",
    "sensitivity_at_rates",
]

FROC_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan of the FROC score, as in CAMELYON16 and LUNA16."""


def candidate_thresholds(values: Tensor, *, count: int = 40, largest: float = 0.1) -> Tensor:
    """Thresholds for a FROC curve: values whose ranks grow geometrically from the maximum on.

    Ranks, not values, are spaced, so a monotone change of the map changes nothing. A threshold that
    flags every value is left out, for it makes each scan one component; of a constant map there
    remains a threshold just above it, which flags nothing.

    Args:
        values: of the maps of all scans inside the foreground, any shape; a random sample will do.
        count: number of thresholds, at most; ties make them fewer.
        largest: fraction of the values that the lowest threshold flags, in (0, 1). The more is
            flagged, the more components merge into few large ones that reach some lesion by chance.

    Returns:
        ``(T,)``, descending.

    Raises:
        InputError: when there are no values, one is not finite, or an option is out of range.
    """
    if count < 1:
        raise InputError(f"count must be 1 or more, got {count}.")
    if not 0 < largest < 1:
        raise InputError(f"largest must lie in (0, 1), got {largest}.")
    flat = torch.from_numpy(as_scores(values))
    if not len(flat):
        raise InputError("There are no values to choose thresholds from.")
    last = max(1, int(largest * len(flat)))
    ranks = torch.logspace(0, math.log10(last), count, dtype=torch.float64).round().long()
    ordered = flat.topk(last).values
    chosen = ordered[ranks - 1].unique().flip(0)
    chosen = chosen[chosen > flat.min()]
    return chosen if len(chosen) else torch.nextafter(ordered[:1], ordered.new_tensor(math.inf))


@dataclass(frozen=True)
class Froc:
    """A free-response ROC curve and its summary.

    Attributes:
        thresholds: descending.
        false_positives: at each threshold, the mean number per scan, or that of a higher threshold
            where it was larger: never falling.
        sensitivity: at each threshold, the fraction of the lesions detected; NaN without a lesion.
        at_rates: sensitivity by number of false positives per scan.
        score: mean of those; NaN without a lesion.
        lesions: number of lesions counted.
        scans: number of scans, those without a lesion included.
    """

    thresholds: tuple[float, ...]
    false_positives: tuple[float, ...]
    sensitivity: tuple[float, ...]
    at_rates: dict[float, float]
    score: float
    lesions: int
    scans: int


@dataclass(frozen=True, eq=False)
class FrocCounts:
    """What a FROC curve is made of, scan by scan: N scans, T thresholds.

    Attributes:
        thresholds: ``(T,)``, descending.
        found: float64 ``(N, T)``, lesions detected.
        lesions: float64 ``(N,)``.
        false_positives: float64 ``(N, T)``.
    """

    thresholds: Tensor
    found: Tensor
    lesions: Tensor
    false_positives: Tensor


def froc_counts(
    scores: Sequence[Tensor],
    false_positives: Sequence[Tensor],
    thresholds: Tensor,
    *,
    volumes: Sequence[Tensor] | None = None,
    size_range: tuple[float, float] | None = None,
) -> FrocCounts:
    """Count lesions and false positives of each scan; arguments and errors are those of :func:`froc`."""
    levels = checked_thresholds(thresholds)
    if not len(scores) or len(scores) != len(false_positives):
        raise InputError(
            f"Got lesion scores of {len(scores)} scans and false positives of "
            f"{len(false_positives)}; both are needed for the same scans, one or more."
        )
    alarms = [torch.as_tensor(counts).detach().cpu() for counts in false_positives]
    if any(counts.shape != levels.shape for counts in alarms):
        raise InputError(
            f"Each scan needs {len(levels)} false-positive counts, one per threshold, got shapes "
            f"{sorted({tuple(counts.shape) for counts in alarms})}."
        )
    scores = [torch.as_tensor(s).detach().cpu().flatten() for s in scores]
    if any(s.isnan().any() for s in scores):
        raise InputError("A lesion's score is NaN; see lesion_scores.")
    if size_range is not None:
        low, high = size_range
        if volumes is None or [len(v) for v in volumes] != [len(s) for s in scores]:
            raise InputError(
                "size_range needs the volume of each lesion: volumes must have as many numbers per "
                "scan as scores."
            )
        if not low < high:
            raise InputError(f"size_range must be (low, high) with low < high, got {size_range}.")
        scores = [s[(v >= low) & (v < high)] for s, v in zip(scores, volumes, strict=True)]
    order = levels.argsort(descending=True)
    levels = levels[order]
    return FrocCounts(
        thresholds=levels,
        found=torch.stack([(s[:, None] >= levels).sum(0) for s in scores]).double(),
        lesions=torch.tensor([len(s) for s in scores], dtype=torch.float64),
        false_positives=torch.stack(alarms)[:, order].double(),
    )


def sensitivity_at_rates(
    found: Tensor,
    total: Tensor,
    false_positives: Tensor,
    scans: Tensor,
    *,
    rates: Sequence[float] = FROC_RATES,
) -> Tensor:
    """Largest sensitivity before the false positives per scan first exceed each rate.

    Going down the thresholds, one is admitted only while neither it nor any higher one has more false
    positives than the rate. Without that condition a map that flags everything, one component per
    scan with every lesion in it, would be perfect. Nothing is interpolated; flagging nothing
    (sensitivity 0) is always admitted.

    Args:
        found: ``(..., T)``, lesions detected, thresholds descending.
        total: ``(...)``, lesions.
        false_positives: ``(..., T)``.
        scans: ``(...)``.
        rates: R numbers of false positives per scan.

    Returns:
        float64 ``(..., R)``; NaN where there is no lesion.
    """
    limits = scans[..., None].double() * torch.tensor(rates, dtype=torch.float64)
    admitted = false_positives.double().cummax(-1).values[..., None, :] <= limits[..., None]
    best = torch.where(admitted, found.double()[..., None, :], 0.0).amax(-1)
    return best / total[..., None].double()


def froc(
    scores: Sequence[Tensor],
    false_positives: Sequence[Tensor],
    thresholds: Tensor,
    *,
    volumes: Sequence[Tensor] | None = None,
    size_range: tuple[float, float] | None = None,
    rates: Sequence[float] = FROC_RATES,
) -> Froc:
    """FROC curve over scans; see :func:`sensitivity_at_rates` for the rule at a given rate.

    A scan without lesions adds false positives only. The FROC score is the mean sensitivity at the
    rates (CAMELYON16, Ehteshami Bejnordi et al. 2017); there the curve is interpolated, here the best
    of the thresholds that keep to the rate is taken. Compare numbers of as many thresholds only.

    Args:
        scores: per scan, ``(L,)`` of :func:`lesion_scores`; empty without a lesion.
        false_positives: per scan, ``(T,)`` of :func:`false_positive_components`.
        thresholds: ``(T,)``, the same for all scans and in the order of those counts.
        volumes: per scan, ``(L,)`` of :class:`Lesions`.
        size_range: count only lesions with low <= volume < high. The others are neither detected nor
            missed, and components on them are no false positives.
        rates: false positives per scan.

    Raises:
        InputError: when there are no scans, numbers differ, a score is NaN, or sizes are asked for
            without volumes.
    """
    counts = froc_counts(
        scores, false_positives, thresholds, volumes=volumes, size_range=size_range
    )
    scans = len(scores)
    found, total = counts.found.sum(0), counts.lesions.sum()
    alarms = counts.false_positives.sum(0)
    at_rates = sensitivity_at_rates(found, total, alarms, torch.tensor(scans), rates=rates)
    return Froc(
        thresholds=tuple(counts.thresholds.tolist()),
        false_positives=tuple((alarms.cummax(0).values / scans).tolist()),
        sensitivity=tuple((found / total).tolist()),
        at_rates=dict(zip(rates, at_rates.tolist(), strict=True)),
        score=float(at_rates.mean()),
        lesions=int(total),
        scans=scans,
    )
