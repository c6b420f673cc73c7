"""docs/architecture.md: its table and its drawing have the rooms that there are, in their order."""

from __future__ import annotations

import re
import tomllib
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = re.findall(
    r"^\| (\d+) \| `([\w.]+)` \|",
    (ROOT / "docs/architecture.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)
Levels = list[set[str]]


def levels_of_table() -> Levels:
    return [{room for _, room in rows} for _, rows in groupby(TABLE, key=lambda row: int(row[0]))]


def test_the_table_has_the_rooms_of_the_package() -> None:
    entries = [*(ROOT / "multiad_med").glob("*.py"), *(ROOT / "multiad_med").glob("*/__init__.py")]
    rooms = {e.parent.name if e.name == "__init__.py" else e.stem for e in entries}
    rooms = {room for room in rooms if not room.startswith("_")} - {"multiad_med"}
    assert {room.partition(".")[0] for _, room in TABLE} == rooms


def test_levels_are_numbered_from_the_top() -> None:
    numbers = [int(level) for level, _ in TABLE]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(1, len(set(numbers)) + 1))


def test_the_levels_are_the_layers_of_import_linter() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = tools.get("importlinter", {}).get("contracts", [])
    layers = next((c["layers"] for c in contracts if c["type"] == "layers"), None)
    if layers is None:
        pytest.skip("pyproject.toml has no contract of layers")
    rooms = [re.findall(r"[\w.]+", layer.replace("multiad_med.", "")) for layer in layers]
    assert levels_of_table() == [set(layer) for layer in rooms]


def test_the_drawing_has_a_row_for_each_level() -> None:
    drawing = (ROOT / "docs/images/rooms.svg").read_text(encoding="utf-8")
    drawn = re.findall(r'y="(\d+)" class="room[^"]*">([\w.]+)<', drawing)
    rows = groupby(drawn, key=lambda room: int(room[0]))
    assert [{name for _, name in row} for _, row in rows] == levels_of_table()
