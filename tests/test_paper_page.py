"""What docs/paper.md names is there: files, symbols, tests, and every setting of the overlay."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from multiad_med.resources import read_config

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([\w./]+/[\w.]+\.(?:py|json|yaml))(?:::([\w.]+))?`", PAGE)))


@pytest.mark.parametrize(("file", "symbol"), NAMES)
def test_files_symbols_and_tests_exist(file: str, symbol: str) -> None:
    assert (ROOT / file).is_file()
    if file.startswith("tests/") and symbol:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {symbol}\(", text, flags=re.MULTILINE)
    elif symbol:
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        assert callable(reduce(getattr, symbol.split("."), module))


def test_every_equation_and_table_has_its_row() -> None:
    split = PAGE.split("## Equations")[1].split("\n## ")[0]
    first = [row.split("|")[1] for row in split.splitlines() if row.startswith("| ")]
    numbers = {int(n) for cell in first for n in re.findall(r"\d+", cell)}
    assert numbers == set(range(1, 16))
    assert {f"Table {n}," in PAGE for n in (1, 2, 3, 4)} == {True}
    assert len(NAMES) > 40


def test_every_setting_of_the_overlay_has_its_row() -> None:
    split = PAGE.split("## What `paper.json` sets")[1].split("\n## ")[0]
    told = re.findall(r"^\| `([\w#]+)` \|", split, flags=re.MULTILINE)
    assert told == list(read_config("multiad_brain_mri", "paper.json"))


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert targets
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
