"""Volumes of no known data set: a folder of NIfTI, or a table that lists files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import SPLITS
from multiad_med.data.study_files import DatalistError, find_studies, matching, visible_files
from multiad_med.datasets.layout_files import (
    by_study,
    case_name,
    existing_folder,
    first,
    natural_key,
    nothing_found,
    study_name,
)

__all__ = ["find_volumes"]

_TABLES = {".csv": ",", ".tsv": "\t"}
_PATHS = ("image", "label", "organ")
_COLUMNS = (*_PATHS, "subject", "study", "split", "section", "anomalous")
_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _study(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder).parent if path.is_relative_to(folder) else path.parent.name
    return study_name(*Path(inside).parts, case_name(path))


def _table_item(row: dict[str, str], where: str, folder: Path) -> dict[str, Any]:
    """Return one row's item.

    Raises:
        DatalistError: naming the row, for a missing file or a value that is not allowed.
    """
    item: dict[str, Any] = {}
    for key in _PATHS:
        if row.get(key):
            path = folder / row[key]
            if not path.exists():
                raise DatalistError(
                    f"{where}: {key} {path} does not exist. Paths are relative to the table."
                )
            item[key] = str(path)
    if "image" not in item:
        raise DatalistError(f"{where} names no image.")
    image = Path(item["image"])
    item["study"] = study_name(row["study"]) if row.get("study") else _study(image, folder)
    item["subject"] = row.get("subject") or item["study"]
    if split := row.get("split") or row.get("section"):  # its name in version 0.1
        if split not in SPLITS:
            raise DatalistError(f"{where}: split {split!r}; allowed are {list(SPLITS)}.")
        item["split"] = split
    if anomalous := row.get("anomalous"):
        if anomalous.lower() not in _BOOLEANS:
            raise DatalistError(f"{where}: anomalous {anomalous!r}; allowed are {list(_BOOLEANS)}.")
        item["anomalous"] = _BOOLEANS[anomalous.lower()]
    return item


def _read_table(table: Path) -> list[dict[str, Any]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=_TABLES[table.suffix.lower()], strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatalistError(f"{table} cannot be read as a table in UTF-8: {error}.") from error
    unknown = [name for name in columns if name not in _COLUMNS]
    if "image" not in columns or unknown:
        raise DatalistError(
            f"{table} has the columns {columns}; `image` is needed, and besides it only "
            f"{list(_COLUMNS[1:])} are allowed."
        )
    items = []
    for line, row in rows:
        if None in row or None in row.values():
            raise DatalistError(f"{table}, line {line} should have {len(columns)} fields.")
        cells = {key: value.strip() for key, value in row.items()}
        items.append(_table_item(cells, f"{table}, line {line}", table.parent))
    if not items:
        raise DatalistError(f"{table} has a header and no rows.")
    bare = [str(i["image"]) for i in items if "label" not in i and "anomalous" not in i]
    if bare and any("label" in item for item in items):
        raise DatalistError(
            f"{table}: {len(bare)} of {len(items)} rows have no label, while others have: {first(bare)}. "
            "Say with `anomalous` whether they are normal (false) or not (true)."
        )
    return items


def find_volumes(
    source: str | Path, *, image_glob: str | None = None, label_glob: str | None = None
) -> list[dict[str, Any]]:
    """List the volumes of a folder, or of a table.

    Args:
        source: a folder, or a ``.csv`` or ``.tsv`` file in UTF-8 with a header. Its columns are
            ``image`` and, as wanted, ``label`` (lesion mask), ``organ`` (organ mask), ``subject``,
            ``study``, ``split`` ("training", "validation" or "test") and ``anomalous``; paths are
            relative to the table. An empty field is not given.
        image_glob: of a folder only; see
            :func:`multiad_med.data.find_studies`.
        label_glob: likewise.

    Returns:
        Items with ``image``, ``subject``, ``study`` and what else the table gives. Without a table,
        ``subject`` is the sub-folder, or else the file's name; ``study`` the path within the folder.
        Every mask value above 0 is lesion unless the recipe says otherwise.

    Raises:
        DatalistError: when the source is missing, nothing matches, the table has other columns or
            values, a file in it is missing, or a study occurs twice; the message names the line.
    """
    path = Path(source).expanduser().absolute()
    if path.is_file() and path.suffix.lower() in _TABLES:
        return by_study(_read_table(path))
    folder = existing_folder(path)
    if not visible_files(folder, image_glob):
        raise nothing_found(folder, f"file that {matching(image_glob)}", recipe="volumes")
    items = find_studies(folder, image_glob=image_glob, label_glob=label_glob)
    return by_study(
        [
            {**item, "study": _study(Path(item["image"]), folder)}
            for item in sorted(items, key=lambda item: natural_key(item["image"]))
        ]
    )
