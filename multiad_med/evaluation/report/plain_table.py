"""A table as plain data, which the page's template draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multiad_med.metrics import Estimate

__all__ = ["MISSING", "Cell", "Group", "Row", "Table", "head_of"]

MISSING = "\N{EN DASH}"
"""What stands for a metric that is undefined."""


@dataclass(frozen=True)
class Cell:
    """A cell that shows more than plain text.

    Attributes:
        text: of the cell.
        notes: small print below it.
        warnings: the same, highlighted.
        bold: whether it stands out.
        bar: a value in [0, 1], drawn on its interval.
    """

    text: str = ""
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    bold: bool = False
    bar: Estimate | None = None


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Group:
    """Rows, under a heading where there is one."""

    rows: Sequence[Row]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways where it is too wide.

    Attributes:
        caption: above it.
        style: its class in the style sheet.
        head: name of each column, and its class. Each row starts with its heading.
        groups: of rows.
    """

    caption: str
    style: str
    head: Sequence[tuple[str, str]]
    groups: Sequence[Group]


def head_of(first: str, *numbers: str) -> list[tuple[str, str]]:
    """Return the head of columns, all of numbers but the first."""
    return [(first, "text"), *((name, "number") for name in numbers)]
