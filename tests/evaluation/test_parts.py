"""Halves of a test set: no subject in both, every kind in each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiad_med.evaluation.parts import Part, subjects_of_part


def _rows(subjects: int) -> list[dict[str, str]]:
    kinds = ["good", "scratch", "crack"]
    return [
        {
            "subject": f"s{i}",
            "category": "screw",
            "kind": kinds[i % 3],
            "state": "normal" if i % 3 == 0 else "abnormal",
        }
        for i in range(subjects)
        for _ in range(2)
    ]


@given(st.integers(1, 60))
def test_halves_are_disjoint_and_together_everything(subjects: int) -> None:
    rows = _rows(subjects)
    development = subjects_of_part(rows, Part.DEVELOPMENT)
    report = subjects_of_part(rows, "report")
    assert not development & report
    assert development | report == subjects_of_part(rows, Part.ALL) == {r["subject"] for r in rows}


def test_each_kind_is_halved() -> None:
    rows = _rows(60)
    kinds = {row["subject"]: row["kind"] for row in rows}
    for part in (Part.DEVELOPMENT, Part.REPORT):
        count = Counter(kinds[s] for s in subjects_of_part(rows, part))
        assert count == {"good": 10, "scratch": 10, "crack": 10}


def test_order_of_the_rows_does_not_matter() -> None:
    rows = _rows(30)
    assert subjects_of_part(rows, "report") == subjects_of_part(rows[::-1], "report")


def test_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown part 'test'; choose one of"):
        subjects_of_part(_rows(3), "test")
