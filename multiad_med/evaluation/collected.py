"""Scores of all cases, and how metrics over their subjects are resampled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from multiad_med.metrics import Estimate, Ranking, bootstrap_ranking, interval, resamples
from multiad_med.networks import MultiAD
from multiad_med.scoring import Level, NormalScores, unit_name

__all__ = ["Collected", "Thresholds"]

_RANKING = {"auroc": "auroc", "ap": "average_precision", "f1_max": "f1_max"}


@dataclass(frozen=True)
class Thresholds:
    """Thresholds from held-out normal images.

    Attributes:
        pixel: threshold of the map.
        pixel_rate: false-positive rate that it was set for, NaN where unknown.
        levels: held-out normal scores of slices, volumes and patients; a level that is missing has no
            verdict.
        domain: of the model, which decides the name of a unit.
    """

    pixel: float = 0.5
    pixel_rate: float = math.nan
    levels: Mapping[Level, NormalScores] = field(default_factory=dict)
    domain: str = ""

    def level(self, level: Level) -> NormalScores:
        """Return the normal scores of a level; empty where it is missing."""
        return self.levels.get(level, NormalScores((), 0.05))

    def unit(self, level: Level) -> str:
        """Return the name of a level's unit."""
        return unit_name(level, self.domain)

    @classmethod
    def of(cls, network: MultiAD) -> Thresholds:
        """Return the thresholds that :func:`multiad_med.training.calibrate` set in a network."""
        return cls(
            pixel=0.5,
            pixel_rate=float(network.pixel_false_positive_rate),
            levels=dict(network.card.levels),
            domain=network.card.domain,
        )


class Collected:
    """Scores of all slices, and how their subjects are resampled.

    Args:
        subjects: of each case.
        scores, abnormal: of each case's slices.
        count: number of resamples.
        seed: of the resampling.
    """

    def __init__(
        self,
        subjects: Sequence[str],
        scores: Sequence[Tensor],
        abnormal: Sequence[Tensor],
        *,
        count: int,
        seed: int,
    ) -> None:
        self.subjects = sorted(set(subjects))
        self.position = {subject: i for i, subject in enumerate(self.subjects)}
        self.of_case = torch.tensor([self.position[subject] for subject in subjects])
        self.weights = resamples(len(self.subjects), count=count, seed=seed)
        self.scores, self.abnormal = torch.cat(list(scores)), torch.cat(list(abnormal))
        slices = torch.tensor([len(own) for own in scores])
        self.of_slice = self.of_case.repeat_interleave(slices)

    def interval(self, values: Tensor, estimate: float) -> Estimate:
        """Return the 95 % interval over the subjects; undefined where the estimate is."""
        if math.isnan(estimate):
            return Estimate(math.nan, math.nan, math.nan)
        return interval(values, estimate, subjects=len(self.subjects))

    def share(self, chosen: Tensor, subjects: Tensor) -> Estimate:
        """Return the share of items ``(N,)`` that are chosen, with its interval."""
        counts = torch.zeros(2, len(self.subjects), dtype=torch.float64)
        counts[0].index_add_(0, subjects, chosen.double())
        counts[1].index_add_(0, subjects, torch.ones(len(chosen), dtype=torch.float64))
        hits, items = counts @ self.weights.double().T
        share = float(chosen.double().mean()) if len(chosen) else math.nan
        return self.interval(hits / items, share)

    def ranking(
        self, prefix: str, scores: Tensor, labels: Tensor, subjects: Tensor
    ) -> tuple[dict[str, Estimate], Ranking]:
        """Return AUROC, AP and largest F1 of items, with intervals."""
        ranking = Ranking(scores, labels)
        drawn = bootstrap_ranking(scores, labels, subjects, self.weights)
        metrics = {
            f"{prefix}_{short}": self.interval(drawn[name], getattr(ranking, name))
            for short, name in _RANKING.items()
        }
        return metrics, ranking
