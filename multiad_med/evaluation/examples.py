"""Slices for a reader to look at: found best, missed, and false alarms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.results import Example
from multiad_med.metrics import dice
from multiad_med.preparation.sheet import as_looked_at

__all__ = ["choose_examples"]

Place = tuple[float, Case, int]


def _one_per_study(places: Iterable[Place], count: int) -> list[Place]:
    """The first places, each study once as long as there are others."""
    ordered = list(places)
    seen: set[str] = set()
    first = []
    for place in ordered:
        if place[1].study not in seen:
            seen.add(place[1].study)
            first.append(place)
    rest = [place for place in ordered if not any(place is f for f in first)]
    return (first + rest)[:count]


def _example(case: Case, i: int, *, best: bool, what: str) -> Example:
    def shown(values: Tensor) -> Tensor:
        turned = as_looked_at(values.numpy(), upright=case.upright)
        return torch.from_numpy(turned.copy())

    title = case.study if len(case.numbers) == 1 else f"{case.study}, slice {int(case.numbers[i])}"
    return Example(
        title=f"{title}: {what}",
        image=shown(case.image[i]),
        anomaly_map=shown(case.anomaly_map[i]),
        label=shown(case.label[i]),
        best=best,
    )


def choose_examples(cases: Sequence[Case], threshold: float, *, count: int = 6) -> list[Example]:
    """The best and the worst slices of scored cases, from as many studies as possible.

    Best are abnormal slices of the highest Dice at the threshold. Worst are, half and half, abnormal
    slices with a mask of the lowest score and normal slices of the highest.

    Args:
        cases: scored studies.
        threshold: of the map.
        count: of each kind, at most.
    """
    hits: list[Place] = []
    misses: list[Place] = []
    alarms: list[Place] = []
    for case in cases:
        for i in range(len(case.numbers)):
            score = float(case.scores[i])
            if not case.abnormal[i]:
                alarms.append((score, case, i))
            elif case.masked[i]:
                overlap = dice(case.anomaly_map[i] >= threshold, case.label[i])
                hits.append((0.0 if math.isnan(overlap) else overlap, case, i))
                misses.append((score, case, i))
    hits.sort(key=lambda place: -place[0])
    misses.sort(key=lambda place: place[0])
    alarms.sort(key=lambda place: -place[0])
    best = [
        _example(case, i, best=True, what=f"Dice {value:.2f}")
        for value, case, i in _one_per_study(hits, count)
    ]
    missed = [
        _example(case, i, best=False, what=f"abnormal, score only {value:.2f}")
        for value, case, i in _one_per_study(misses, count // 2)
    ]
    false = [
        _example(case, i, best=False, what=f"normal, score {value:.2f}")
        for value, case, i in _one_per_study(alarms, count - count // 2)
    ]
    return best + missed + false
