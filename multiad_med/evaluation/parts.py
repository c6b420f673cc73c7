"""Halves of a test set: one to choose on, one to report on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import StrEnum

from multiad_med.data.datalist import rank_subjects
from multiad_med.utils.errors import InputError

__all__ = ["Part", "subjects_of_part"]


class Part(StrEnum):
    """Which of a test set's subjects are used."""

    ALL = "all"
    """All of them."""
    DEVELOPMENT = "development"
    """One half, on which settings may be chosen."""
    REPORT = "report"
    """The other half, which no choice has seen."""


def subjects_of_part(rows: Sequence[Mapping[str, str]], part: Part | str) -> set[str]:
    """Return the subjects of a part of a test set.

    A subject belongs to one half only. Each half gets every second subject of each group of equal
    category, kinds of defect, and having or not having abnormal slices, in an order that depends on
    the subjects' identifiers alone.

    Args:
        rows: of a cache's index, with ``subject``, ``category``, ``kind`` and ``state``.
        part: see :class:`Part`.

    Raises:
        InputError: on an unknown part.
    """
    if part not in list(Part):
        raise InputError(f"Unknown part {part!r}; choose one of {[str(p) for p in Part]}.")
    kinds: dict[str, set[tuple[str, str]]] = defaultdict(set)
    abnormal: dict[str, bool] = defaultdict(bool)
    for row in rows:
        kinds[row["subject"]].add((row["category"], row["kind"]))
        abnormal[row["subject"]] |= row["state"] == "abnormal"
    if part == Part.ALL:
        return set(kinds)
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for subject, its in kinds.items():
        groups[(tuple(sorted(its)), abnormal[subject])].append(subject)
    chosen: set[str] = set()
    for subjects in groups.values():
        ranked = rank_subjects(subjects, seed=0)
        chosen.update(ranked[0 if part == Part.DEVELOPMENT else 1 :: 2])
    return chosen
