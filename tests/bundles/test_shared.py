"""Bundles say the same, but where ``bundles/README.md`` says that they differ, and why.

Each bundle is complete when it is copied away, so that bundles cannot share a file. Here their configs
are compared key by key, and what differs with the tables of that page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from multiad_med.resources import bundle_path, bundles_dir
from multiad_med.testing.cohorts import bundle_names

PAGE = bundles_dir() / "README.md"
SAME = ("LICENSE", "large_files.yml", "configs/logging.conf")
NAMES = sorted({p.name for p in bundles_dir().glob("*/configs/*.json")})
ABSENT = "–"
OWN = "…"
"""A cell of the page for a text that is the bundle's own."""

Row = tuple[str, ...]
"""What each bundle says."""


def told() -> tuple[list[str], dict[str, Row]]:
    """The page's bundles, and its rows by what they are about."""
    bundles: list[str] = []
    rows: dict[str, Row] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| "):
            continue
        what, *cells, why = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        if what == "what":
            bundles = [f"multiad_{cell}" for cell in cells]
        elif bundles and len(cells) == len(bundles):
            assert why, f"{what}: why?"
            assert what not in rows, f"{what} stands twice"
            rows[what] = tuple(cells)
    return bundles, rows


BUNDLES, TOLD = told()


def component(item: Any) -> str:
    """The class of a component, or the reference in its place."""
    return item if isinstance(item, str) else item["_target_"].rpartition(".")[2]


def entries(value: Any, path: str, owner: str) -> Iterator[tuple[str, str, str]]:
    """Path and text of all that a config says, and the path of the component that it is of.

    A component says its class, a list of components their classes in order. What training sets itself
    inference has from the model's card; both are written alike.
    """
    if isinstance(value, dict):
        if "_target_" in value:
            yield path, component(value), owner
            owner = path
        for key in value:
            if key != "_target_":
                yield from entries(value[key], f"{path}#{key}", owner)
    elif isinstance(value, list) and any(str(item)[:1] in ("{", "@") for item in value):
        names: list[str] = []
        for item in value:
            name = component(item)
            names.append(name + "'" * sum(n.rstrip("'") == name for n in names))
            if isinstance(item, dict):
                step = f"{path}#{names[-1]}"
                yield from entries(item, step, step)
        yield path, ", ".join(names), owner
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        text = re.sub(r"@prepared\['(\w+)'\]", r"@\1", text)
        yield path, re.sub(r"^\$(@\w+)$", r"\1", text), owner


def differences(file: str) -> Iterator[tuple[str, Row]]:
    """What bundles say differently in a config: arguments are compared within a class."""
    said: list[dict[str, str]] = []
    owners: dict[str, str] = {}
    root = file.removesuffix(".json")
    for bundle in BUNDLES:
        path = bundle_path(bundle) / "configs" / file
        found = [(root, "there", "")] if path.is_file() else []
        if found:
            found += entries(json.loads(path.read_text(encoding="utf-8")), root, root)
        said.append({path: text for path, text, _ in found})
        owners |= {path: owner for path, _, owner in found}
    for path, owner in owners.items():
        of = [texts.get(owner) for texts in said]
        for each in dict.fromkeys(of):
            if owner and each is None:
                continue
            mine = [c == each for c in of]
            row = tuple(
                t.get(path, ABSENT) if m else ABSENT for t, m in zip(said, mine, strict=True)
            )
            if len({cell for cell, m in zip(row, mine, strict=True) if m}) > 1:
                yield path, row


def explains(what: str, cells: Row, path: str, row: Row) -> bool:
    """Whether a row of the page tells of a difference.

    It does wherever its key stands: with its own values, handed on, or left to the model's card by
    inference (null). A row of texts does for all below its key.
    """
    if set(cells) == {OWN}:
        return f"#{what}#" in f"#{path}#"
    if not f"#{path}".endswith(f"#{what}"):
        return False
    of_card = "null" if path.startswith("inference#") else None
    handed_on = re.compile(rf"@{what.rpartition('#')[2]}\b")
    return all(
        cell == text
        or (ABSENT not in (cell, text) and (text == of_card or handed_on.search(text) is not None))
        for cell, text in zip(cells, row, strict=True)
    )


def test_the_page_tells_of_every_bundle() -> None:
    assert sorted(BUNDLES) == bundle_names()


@pytest.mark.parametrize("file", NAMES)
def test_bundles_differ_only_in_what_the_page_tells(file: str) -> None:
    untold = [
        f"| `{path}` | " + " | ".join(f"`{cell}`" for cell in row) + " | why? |"
        for path, row in differences(file)
        if not any(explains(what, cells, path, row) for what, cells in TOLD.items())
    ]
    assert not untold, "make the bundles alike, or tell of it in bundles/README.md:\n" + "\n".join(
        untold
    )


def test_the_page_tells_of_nothing_else() -> None:
    found = [pair for file in NAMES for pair in differences(file)]
    old = [
        what
        for what, cells in TOLD.items()
        if not any(
            explains(what, cells, p, row) for p, row in found if {*cells} == {OWN} or cells == row
        )
    ]
    assert not old, "no bundle differs in this any more, or by other values"


def ordered(values: list[Any], path: str) -> None:
    """Refuse keys that two configs share in another order."""
    first, *others = values
    for other in others:
        shared = [key for key in first if key in other]
        assert shared == [key for key in other if key in first], path
        for key in shared:
            if isinstance(first[key], dict) and isinstance(other[key], dict):
                ordered([first[key], other[key]], f"{path}#{key}")


@pytest.mark.parametrize("file", NAMES)
def test_shared_keys_stand_in_the_same_order(file: str) -> None:
    paths = [bundle_path(bundle) / "configs" / file for bundle in BUNDLES]
    ordered([json.loads(path.read_text()) for path in paths if path.is_file()], file)


@pytest.mark.parametrize("file", SAME)
def test_other_files_are_the_same_byte_by_byte(file: str) -> None:
    assert len({(bundle_path(bundle) / file).read_bytes() for bundle in BUNDLES}) == 1
