"""Sensitivity for lesions against false positives per scan (FROC) over many scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multiad_med.metrics.counting import as_anomalous, as_scores
from multiad_med.metrics.lesions import (
    checked_thresholds,
    false_positive_components,
    lesion_scores,
    lesions,
)
from multiad_med.utils.errors import InputError

__all__ = [
    "FROC_RATES",
    "Froc",
    "FrocCounts",
    "ScanLesions",
    "froc",
    "froc_counts",
    "pooled_scans",
    "scan_lesions",
    "sensitivity_at_rates",
]

FROC_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan of the FROC score, as in CAMELYON16 and LUNA16."""


@dataclass(frozen=True, eq=False)
class ScanLesions:
    """What a FROC curve needs of one scan, without its map.

    Attributes:
        thresholds: ``(K,)`` of its map, descending; between them the map counts as the lower one.
        flagged: int64 ``(K,)``, foreground voxels at or above each.
        voxels: number of foreground voxels.
        false_positives: int64 ``(K,)``, see :func:`~multiad_med.metrics.false_positive_components`.
        scores: ``(L,)``, see :func:`~multiad_med.metrics.lesion_scores`.
        volumes: ``(L,)``, see :class:`~multiad_med.metrics.Lesions`.
    """

    thresholds: Tensor
    flagged: Tensor
    voxels: int
    false_positives: Tensor
    scores: Tensor
    volumes: Tensor


def scan_lesions(
    anomaly_map: Tensor,
    truth: Tensor,
    *,
    foreground: Tensor,
    spacing: Sequence[float] | None = None,
    count: int = 40,
    largest: float = 0.5,
) -> ScanLesions:
    """Reduce a scan to its lesions' scores and its false positives at thresholds of its own.

    The thresholds are foreground values whose ranks grow geometrically from the maximum on. Ranks, not
    values, are spaced, so a monotone change of the map changes nothing.

    Args:
        anomaly_map: ``(X, Y, Z)`` or ``(H, W)``, the larger the more anomalous.
        truth: mask of the same shape, lesion where not 0.
        foreground: mask of the same shape; nothing outside is flagged.
        spacing: mm per axis, for the lesions' volumes.
        count: number of thresholds, at most; ties make them fewer.
        largest: fraction of the foreground that the lowest threshold flags, in (0, 1].

    Raises:
        InputError: when shapes differ, the map is not finite, or an option is out of range.
    """
    if count < 1:
        raise InputError(f"count must be 1 or more, got {count}.")
    if not 0 < largest <= 1:
        raise InputError(f"largest must lie in (0, 1], got {largest}.")
    targets = lesions(truth, spacing=spacing)
    scores = lesion_scores(anomaly_map, targets, foreground=foreground)
    volumes = targets.volumes
    del targets  # as large as the scan
    # With numpy, as a mask costs torch 24 bytes per voxel inside.
    ordered = as_scores(anomaly_map)[as_anomalous(foreground)]
    ordered.sort()
    voxels = ordered.size
    if not voxels:
        none = torch.zeros(0, dtype=torch.int64)
        return ScanLesions(none.float(), none, 0, none, scores, volumes)
    last = max(1, int(largest * voxels))
    ranks = np.unique(np.logspace(0, math.log10(last), count).round().astype(np.int64))
    chosen = np.unique(ordered[-ranks])[::-1].copy()
    flagged = voxels - np.searchsorted(ordered, chosen)
    del ordered
    thresholds = torch.from_numpy(chosen)
    return ScanLesions(
        thresholds,
        torch.from_numpy(flagged),
        voxels,
        false_positive_components(anomaly_map, truth, thresholds, foreground=foreground),
        scores,
        volumes,
    )


def pooled_scans(
    scans: Sequence[ScanLesions], *, count: int = 40, largest: float = 0.1
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return scans at thresholds that they share, as :func:`froc` takes them.

    A scan's map counts as rounded down to the scan's own thresholds; on maps of no more values than
    those nothing is lost. Of all these values those are taken whose ranks over all scans grow
    geometrically from the maximum on. A threshold that flags every voxel of all scans is left out, for
    it makes each scan one component; for constant maps a threshold just above them remains.

    Args:
        scans: of :func:`scan_lesions`, at least one with foreground.
        count: number of thresholds, at most; ties make them fewer.
        largest: fraction of all voxels that the lowest threshold flags, in (0, 1). The more is
            flagged, the more components merge into few large ones that touch a lesion by chance.

    Returns:
        Lesion scores and false positives of each scan, and the thresholds ``(T,)``, descending.

    Raises:
        InputError: when no scan has foreground, or an option is out of range.
    """
    if count < 1:
        raise InputError(f"count must be 1 or more, got {count}.")
    if not 0 < largest < 1:
        raise InputError(f"largest must lie in (0, 1), got {largest}.")
    total = sum(scan.voxels for scan in scans)
    if not total:
        raise InputError("No scan has foreground; there are no values to choose thresholds from.")
    values, order = torch.cat([scan.thresholds for scan in scans]).sort(descending=True)
    added = torch.cat([scan.flagged.diff(prepend=scan.flagged.new_zeros(1)) for scan in scans])
    reached = added[order].cumsum(0)
    last = max(1, int(largest * total))
    ranks = torch.logspace(0, math.log10(last), count, dtype=torch.float64).round().long()
    places = torch.searchsorted(reached, ranks).clamp(max=len(values) - 1)
    chosen = values[places].unique().flip(0)
    everything = torch.stack([(values >= level).long() @ added[order] for level in chosen]) == total
    chosen = chosen[~everything]
    if not len(chosen):
        chosen = torch.nextafter(values[:1], values.new_tensor(math.inf))
    scores, alarms = [], []
    for scan in scans:
        # How many of the scan's own thresholds reach each shared one, and each lesion's score.
        ascending = scan.thresholds.flip(0)
        reaching = len(ascending) - torch.searchsorted(ascending, chosen)
        alarms.append(torch.cat([reaching.new_zeros(1), scan.false_positives])[reaching])
        below = torch.searchsorted(ascending, scan.scores.contiguous(), right=True)
        scores.append(torch.cat([ascending.new_tensor([-math.inf]), ascending])[below])
    return scores, alarms, chosen


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
    """Return the largest sensitivity before the false positives per scan first exceed each rate.

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
    """Return the FROC curve over scans; see :func:`sensitivity_at_rates` for the rule at a given rate.

    A scan without lesions adds false positives only. The FROC score is the mean sensitivity at the
    rates (CAMELYON16, Ehteshami Bejnordi et al. 2017); there the curve is interpolated, here the best
    of the thresholds that keep to the rate is taken. Compare only scores from equally many thresholds.

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
