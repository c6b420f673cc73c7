"""All cases of an evaluation, and how figures over their subjects are resampled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.metrics import Estimate, Ranking, bootstrap_ranking, interval, resamples
from multiad_med.networks import MultiAD

__all__ = ["Collected", "Thresholds"]

_RANKING = {"auroc": "auroc", "ap": "average_precision", "f1_max": "f1_max"}


@dataclass(frozen=True)
class Thresholds:
    """Thresholds from held-out normal images, and the false-positive rates that they were set for.

    Attributes:
        pixel: of the map.
        image: of a slice's score; NaN where none was set.
        pixel_rate, image_rate: nominal rates, NaN where unknown.
    """

    pixel: float = 0.5
    image: float = math.nan
    pixel_rate: float = math.nan
    image_rate: float = math.nan

    @classmethod
    def of(cls, network: MultiAD) -> Thresholds:
        """Those that :func:`multiad_med.engines.calibrate` put into a network."""
        return cls(
            pixel=0.5,
            image=float(network.image_threshold),
            pixel_rate=float(network.pixel_false_positive_rate),
            image_rate=float(network.image_false_positive_rate),
        )


class Collected:
    """All cases, and how their subjects are resampled."""

    def __init__(self, cases: list[Case], thresholds: Thresholds, count: int, seed: int) -> None:
        self.cases = cases
        self.thresholds = thresholds
        self.subjects = sorted({case.subject for case in cases})
        position = {subject: i for i, subject in enumerate(self.subjects)}
        self.of_case = torch.tensor([position[case.subject] for case in cases])
        self.weights = resamples(len(self.subjects), count=count, seed=seed)
        self.scores = torch.cat([case.scores for case in cases])
        self.abnormal = torch.cat([case.abnormal for case in cases])
        self.of_slice = self.of_case.repeat_interleave(
            torch.tensor([len(case.scores) for case in cases])
        )

    def interval(self, values: Tensor, estimate: float) -> Estimate:
        if math.isnan(estimate):
            return Estimate(math.nan, math.nan, math.nan)
        return interval(values, estimate, subjects=len(self.subjects))

    def ranking(
        self, prefix: str, scores: Tensor, labels: Tensor, subjects: Tensor
    ) -> tuple[dict[str, Estimate], Ranking]:
        """AUROC, AP and largest F1 of items, with intervals."""
        ranking = Ranking(scores, labels)
        drawn = bootstrap_ranking(scores, labels, subjects, self.weights)
        figures = {
            f"{prefix}_{short}": self.interval(drawn[name], getattr(ranking, name))
            for short, name in _RANKING.items()
        }
        return figures, ranking
