"""False-positive rates that thresholds from held-out normals promise, and observed ones."""

from __future__ import annotations

import math

import torch
from scipy.stats import binomtest
from torch import Tensor

from multiad_med.evaluation.collected import Collected, Thresholds
from multiad_med.evaluation.evaluation import LevelRates
from multiad_med.evaluation.pixel_level import PixelLevel
from multiad_med.metrics import Estimate
from multiad_med.scoring import Level, NormalScores

__all__ = ["observed_rates"]

_UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def _binomial(chosen: Tensor) -> Estimate:
    """Return the share of independent items with its exact interval (Clopper and Pearson 1934)."""
    if not len(chosen):
        return _UNDEFINED
    hits = int(chosen.sum())
    bounds = binomtest(hits, len(chosen)).proportion_ci(0.95, method="exact")
    return Estimate(hits / len(chosen), float(bounds.low), float(bounds.high))


def observed_rates(
    thresholds: Thresholds,
    collected: Collected,
    pixels: PixelLevel,
    *,
    volumes: tuple[Tensor, Tensor],
    patients: tuple[Tensor, Tensor],
) -> dict[str, LevelRates]:
    """Return nominal and observed rates of pixels, slices, volumes and patients.

    Intervals of pixels and slices are by bootstrap over patients, those of volumes and patients exact
    binomial ones.

    Args:
        thresholds: from held-out normals.
        collected: scores of the slices.
        pixels: all cases' pixels.
        volumes, patients: scores of each, and whether it is anomalous.
    """
    normal, observed, lesion, sensitivity = pixels.observed(collected)
    rates = {
        "pixel": LevelRates(
            thresholds.pixel_rate,
            thresholds.pixel,
            "",
            None,
            "",
            normal,
            observed,
            lesion,
            sensitivity,
        )
    }
    items: dict[Level, tuple[Tensor, Tensor]] = {
        Level.SLICE: (collected.scores, collected.abnormal),
        Level.VOLUME: volumes,
        Level.PATIENT: patients,
    }
    for level, (scores, anomalous) in items.items():
        normals: NormalScores = thresholds.level(level)
        flagged = normals.flagged(scores)
        found = []
        for chosen in (~anomalous, anomalous):
            if normals.threshold is None:
                found.append(_UNDEFINED)
            elif level is Level.SLICE:
                found.append(collected.share(flagged[chosen], collected.of_slice[chosen]))
            else:
                found.append(_binomial(flagged[chosen]))
        rates[str(level)] = LevelRates(
            nominal=normals.rate,
            threshold=normals.threshold,
            no_verdict=normals.no_verdict(thresholds.unit(level)),
            held_out=normals.units,
            approximate=normals.approximate,
            normal=int((~anomalous).sum()),
            observed=found[0],
            anomalous=int(torch.as_tensor(anomalous).sum()),
            sensitivity=found[1],
        )
    return rates
