"""VisA: industrial images whose splits are in a table of the data set itself."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.layout_files import (
    by_study,
    existing_folder,
    first,
    natural_key,
    nothing_found,
    study_name,
)

__all__ = ["SPLIT_FOLDER", "find_visa"]

SPLIT_FOLDER = "split_csv"
_COLUMNS = ("object", "split", "label", "image", "mask")
_SPLITS = {"train": "training", "test": "test"}
_LABELS = ("normal", "anomaly")


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatalistError(
            f"{table} cannot be read as a table: {error}. Use the published file."
        ) from error
    if missing:
        raise DatalistError(
            f"{table} lacks the columns {missing}; VisA's tables have {list(_COLUMNS)}."
        )
    return rows


def find_visa(
    source: str | Path, *, categories: Sequence[str] | None = None, split_file: str = "1cls"
) -> list[dict[str, Any]]:
    """List the images of VisA by one of its split files.

    Args:
        source: the release's folder, which holds ``split_csv``.
        categories: names of the objects wanted; without, all.
        split_file: name of the table in ``split_csv``, without suffix. ``1cls`` trains on normal
            images only; in the ``2cls_*`` tables training has anomalous ones.

    Returns:
        Items with ``image``, ``subject`` and ``study`` (both ``candle/Data/Images/Normal/0001``),
        ``category``, ``kind`` ("normal" or "anomaly"), ``anomalous``, ``split``, and ``label`` for
        anomalous images. Mask values count kinds of defect from 1: above 0 is defect.

    Raises:
        DatalistError: when the table is missing or has other columns or values, a category is
            unknown, or an image or mask in it is missing.
    """
    folder = existing_folder(source)
    table = folder / SPLIT_FOLDER / f"{split_file}.csv"
    if not table.is_file():
        present = sorted(p.stem for p in table.parent.glob("*.csv"))
        if not present:
            raise nothing_found(folder, f"VisA split file {SPLIT_FOLDER}/*.csv", recipe="mvtec_ad")
        raise DatalistError(
            f"{table} does not exist; the setting split_file can be one of {present}."
        )
    rows = _rows(table)
    known = sorted({row["object"] for row in rows})
    unknown = sorted(set(categories or ()) - set(known))
    if unknown:
        raise DatalistError(f"{table} has no category {unknown}; it has {known}.")
    items, missing = [], []
    for number, row in enumerate(rows, start=2):
        if categories is not None and row["object"] not in categories:
            continue
        if row["split"] not in _SPLITS or row["label"] not in _LABELS:
            raise DatalistError(
                f"{table}, line {number}: split {row['split']!r} and label {row['label']!r}; allowed "
                f"are {list(_SPLITS)} and {list(_LABELS)}."
            )
        anomalous = row["label"] == "anomaly"
        files = [folder / row["image"]] + ([folder / (row["mask"] or "")] if anomalous else [])
        missing += [f"{path} (line {number})" for path in files if not path.is_file()]
        name = study_name(*Path(row["image"]).with_suffix("").parts)
        item = {
            "image": str(files[0]),
            "subject": name,
            "study": name,
            "split": _SPLITS[row["split"]],
            "category": row["object"],
            "kind": row["label"],
            "anomalous": anomalous,
        }
        if anomalous:
            item["label"] = str(files[1])
        items.append(item)
    if missing:
        raise DatalistError(
            f"{len(missing)} images or masks of {table} are missing: {first(missing)}. "
            "Unpack the whole release, or choose categories that are there."
        )
    return by_study(sorted(items, key=lambda item: natural_key(str(item["image"]))))
