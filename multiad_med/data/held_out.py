"""Held-out normals in two groups: one fits and chooses, the other sets thresholds and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

from torch.utils.data import Dataset, Subset

from multiad_med.data.datalist import rank_subjects
from multiad_med.scoring import units_needed

__all__ = ["HeldOutPart", "held_out_part", "held_out_subjects"]

_LEAST_TO_FIT = 5


class HeldOutPart(StrEnum):
    """What a held-out subject is for."""

    FIT = "fit"
    """Validation: the fusion's statistics, the best student, early stopping."""
    THRESHOLDS = "thresholds"
    """Thresholds and p-values."""


class OfSubjects(Protocol):
    """A data set that knows the subject of each item."""

    @property
    def subjects(self) -> list[str]: ...

    def __getitem__(self, index: int) -> Any: ...

    def __len__(self) -> int: ...


def held_out_subjects(
    subjects: Sequence[str], *, rate: float, seed: int = 0
) -> dict[HeldOutPart, set[str]]:
    """Divide held-out subjects into the two groups; if they are too few, each group is all of them.

    A verdict at the rate needs ceil(1 / rate) - 1 subjects, and fitting at least five more. If there
    are still more, a quarter of all fits.

    Args:
        subjects: identifiers; repeated ones count once.
        rate: false-positive rate of the verdict, in (0, 1).
        seed: of the order.
    """
    ranked = rank_subjects(subjects, seed=seed)
    spare = len(ranked) - units_needed(rate)
    if spare < _LEAST_TO_FIT:
        return {part: set(ranked) for part in HeldOutPart}
    count = max(_LEAST_TO_FIT, min(len(ranked) // 4, spare))
    return {
        HeldOutPart.FIT: set(ranked[:count]),
        HeldOutPart.THRESHOLDS: set(ranked[count:]),
    }


def held_out_part(
    dataset: OfSubjects, part: HeldOutPart | str, *, rate: float, seed: int = 0
) -> Dataset:
    """Return the items of the subjects that are for one purpose; see :func:`held_out_subjects`.

    Args:
        dataset: held-out normal slices.
        part: see :class:`HeldOutPart`.
        rate: see :func:`held_out_subjects`.
        seed: see :func:`held_out_subjects`.
    """
    chosen = held_out_subjects(dataset.subjects, rate=rate, seed=seed)[HeldOutPart(part)]
    indices = [index for index, subject in enumerate(dataset.subjects) if subject in chosen]
    return Subset(dataset, indices)  # type: ignore[arg-type]
