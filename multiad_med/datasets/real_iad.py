"""Real-IAD: industrial parts, each pictured from five sides, whose splits are in JSON files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets.layout_files import (
    by_study,
    existing_folder,
    first,
    natural_key,
    nothing_found,
    study_name,
    sub_folders,
)
from multiad_med.utils.json_files import read_json

__all__ = ["find_real_iad"]

_IMAGES, _JSONS = "realiad_", "realiad_jsons"
_SPLITS = {"train": "training", "test": "test"}
_NORMAL = "OK"
_CONTAMINATED = "fuiad"


def _image_folder(folder: Path, resolution: str | int | None) -> Path:
    """The folder of images of one resolution."""
    found = {
        path.name.removeprefix(_IMAGES): path
        for path in sub_folders(folder)
        if path.name.startswith(_IMAGES) and not path.name.startswith(_JSONS)
    }
    if not found:
        raise nothing_found(
            folder, f"folder {_IMAGES}256, {_IMAGES}512, {_IMAGES}1024 or {_IMAGES}raw",
            recipe="real_iad",
        )  # fmt: skip
    if resolution is None and len(found) == 1:
        return next(iter(found.values()))
    if str(resolution) not in found:
        raise DatalistError(
            f"{folder} has images of the resolutions {list(found)}; set `resolution` to one of them, got "
            f"{resolution!r}."
        )
    return found[str(resolution)]


def _tables(folder: Path, table: str, categories: Sequence[str] | None) -> dict[str, Path]:
    """The JSON file of each category."""
    places = [folder / _JSONS / table, folder / table]
    place = next((path for path in places if any(path.glob("*.json"))), None)
    if place is None:
        parents = (folder / _JSONS, folder)
        present = [
            path.name
            for parent in parents
            for path in sub_folders(parent)
            if path.name.startswith(_JSONS) and any(path.glob("*.json"))
        ]
        raise DatalistError(
            f"{folder} has no file {_JSONS}/{table}/<category>.json, which says who is in training and "
            f"test; `table` can be one of {present or 'none: unpack realiad_jsons.zip there'}."
        )
    found = {path.stem: path for path in sorted(place.glob("*.json"))}
    if unknown := sorted(set(categories or ()) - set(found)):
        raise DatalistError(f"{place} has no category {unknown}; it has {list(found)}.")
    return {name: path for name, path in found.items() if categories is None or name in categories}


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each image's part and entry."""
    content = read_json(path)
    rows: list[tuple[str, dict[str, Any]]] = []
    for part in _SPLITS:
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DatalistError(
                f"{path}: damaged: it has no list `{part}`. Take the published file."
            )
        for entry in entries:
            known = isinstance(entry, dict) and all(
                isinstance(entry.get(key), str) for key in ("image_path", "anomaly_class")
            )
            if not known:
                raise DatalistError(
                    f"{path}: an entry of `{part}` has no image_path or anomaly_class: {entry!r}. Take "
                    "the published file."
                )
            rows.append((part, entry))
    return rows


def find_real_iad(
    source: str | Path,
    *,
    categories: Sequence[str] | str | None = None,
    table: str = "realiad_jsons",
    resolution: str | int | None = None,
) -> list[dict[str, Any]]:
    """List the images of Real-IAD (Wang et al., CVPR 2024) after one of its split files.

    A sample, the folder ``S0001``, is a part pictured from five sides, ``C1`` to ``C5`` in the names.
    It is the items' subject, so that the level of patients in an evaluation is the sample's: it
    scores as its highest view, and is anomalous if one of them is.

    Args:
        source: folder of ``realiad_1024`` (or another resolution) and ``realiad_jsons``.
        categories: names of the products wanted, or one; without, all.
        table: folder of the split files in ``realiad_jsons``: ``realiad_jsons``, all views;
            ``realiad_jsons_sv``, one view; ``realiad_jsons_fuiad_0.1`` and the like, whose training
            has anomalous images among the normal ones: all of it is taken as normal, as that
            protocol means it.
        resolution: 256, 512, 1024 or raw, where several are there.

    Returns:
        Items with ``image``, ``subject`` (``audiojack/NG/BX/S0001``), ``study``, ``category``, ``kind``
        (the defect, or ``OK``), ``anomalous``, ``split``, and ``label`` where there is a mask.

    Raises:
        DatalistError: when folders or files are missing, a category is unknown, or a split file is
            damaged.
    """
    folder = existing_folder(source)
    images = _image_folder(folder, resolution)
    chosen = None if categories is None else ensure_tuple(categories)
    items: list[dict[str, Any]] = []
    missing: list[Path] = []
    for category, path in _tables(folder, table, chosen).items():
        for part, row in _rows(path):
            image = images / category / row["image_path"]
            inside = Path(category, row["image_path"])
            contaminated = part == "train" and _CONTAMINATED in table
            anomalous = row["anomaly_class"] != _NORMAL and not contaminated
            item: dict[str, Any] = {
                "image": str(image),
                "subject": study_name(*inside.parent.parts),
                "study": study_name(*inside.with_suffix("").parts),
                "split": _SPLITS[part],
                "category": category,
                "kind": row["anomaly_class"],
                "anomalous": anomalous,
            }
            files = [image]
            if anomalous and row.get("mask_path"):
                files.append(images / category / row["mask_path"])
                item["label"] = str(files[1])
            missing += [file for file in files if not file.is_file()]
            items.append(item)
    if missing:
        raise DatalistError(
            f"{len(missing)} images or masks of {table} are missing: {first(missing)}. Unpack the whole "
            "release, or choose categories that are there."
        )
    return by_study(sorted(items, key=lambda item: natural_key(str(item["image"]))))
