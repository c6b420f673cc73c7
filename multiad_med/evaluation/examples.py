"""Example slices for the report: the best, the missed, and false alarms."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.evaluation import Example
from multiad_med.metrics import dice
from multiad_med.transforms import radiological_view

__all__ = ["Examples"]


def _example(case: Case, i: int, *, best: bool, what: str) -> Example:
    def shown(values: Tensor) -> Tensor:
        turned = radiological_view(values.numpy(), upright=case.upright)
        return torch.from_numpy(turned.copy())

    title = case.study if len(case.numbers) == 1 else f"{case.study}, slice {int(case.numbers[i])}"
    return Example(
        title=f"{title}: {what}",
        image=shown(case.image[i]),
        anomaly_map=shown(case.anomaly_map[i]),
        label=shown(case.label[i]),
        best=best,
    )


class _Highest:
    """The slices that rank highest, from as many studies as possible, as copies.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._of_studies: list[tuple[float, Example]] = []
        self._further: list[tuple[float, Example]] = []

    def update(self, ranks: dict[int, float], make: Callable[[int], Example]) -> None:
        """Add a study: the rank of each of its slices, and a function that makes an example of one."""
        ordered = sorted(ranks, key=lambda i: -ranks[i])
        for kept, slices in ((self._of_studies, ordered[:1]), (self._further, ordered[1:])):
            for i in slices[: self._count]:
                if len(kept) < self._count or ranks[i] > kept[-1][0]:
                    kept.append((ranks[i], make(i)))
                    kept.sort(key=lambda place: -place[0])
                    del kept[self._count :]
        if len(self._of_studies) == self._count:
            self._further.clear()

    def examples(self) -> list[Example]:
        return [e for _, e in (self._of_studies + self._further)[: self._count]]


class Examples:
    """The best and the worst slices of scored cases, from as many studies as possible.

    The best are the abnormal slices with the highest Dice at the threshold. Of the worst, half are
    abnormal slices with a mask and the lowest scores, half normal slices with the highest. Only these
    slices of a case are kept.

    Args:
        threshold: of the map.
        count: of each kind, at most.
    """

    def __init__(self, threshold: float, *, count: int = 6) -> None:
        self._threshold = threshold
        self._hits, self._misses = _Highest(count), _Highest(count // 2)
        self._alarms = _Highest(count - count // 2)

    def update(self, case: Case) -> None:
        """Add a case."""
        scores = dict(enumerate(case.scores.tolist()))
        lesions = [i for i in scores if case.abnormal[i] and case.masked[i]]
        overlaps = {i: dice(case.anomaly_map[i] >= self._threshold, case.label[i]) for i in lesions}
        overlaps = {i: 0.0 if math.isnan(value) else value for i, value in overlaps.items()}
        self._hits.update(
            overlaps, lambda i: _example(case, i, best=True, what=f"Dice {overlaps[i]:.2f}")
        )
        self._misses.update(
            {i: -scores[i] for i in lesions},
            lambda i: _example(case, i, best=False, what=f"abnormal, score only {scores[i]:.2f}"),
        )
        self._alarms.update(
            {i: score for i, score in scores.items() if not case.abnormal[i]},
            lambda i: _example(case, i, best=False, what=f"normal, score {scores[i]:.2f}"),
        )

    def chosen(self) -> list[Example]:
        """Return the best, the missed, and the false alarms."""
        return [e for kind in (self._hits, self._misses, self._alarms) for e in kind.examples()]
