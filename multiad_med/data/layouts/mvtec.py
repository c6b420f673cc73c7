"""MVTec AD and its relatives: MVTec LOCO, BTAD, MPDD, VisA, and own trees of the same form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import DatalistError
from multiad_med.data.layouts.files import (
    by_study,
    existing_folder,
    first,
    is_picture,
    natural_key,
    nothing_found,
    study_name,
    sub_folders,
)
from multiad_med.data.layouts.visa import SPLIT_FOLDER, find_visa

__all__ = ["find_mvtec", "loco_saturation"]

_NORMAL = ("good", "ok", "normal")
_SECTIONS = {"train": "training", "validation": "validation", "test": "test"}
_MASKS = "ground_truth"


def _pictures(folder: Path) -> list[Path]:
    """The pictures that lie in a folder itself."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if is_picture(p) and not p.name.startswith("."))
    return sorted(found, key=natural_key)


def _is_normal(folder: Path) -> bool:
    return folder.name.lower() in _NORMAL


def _is_category(folder: Path) -> bool:
    return any(_is_normal(kind) for kind in sub_folders(folder / "train"))


def _category_folders(folder: Path, categories: Sequence[str] | None) -> list[Path]:
    if _is_category(folder):
        found = [folder]
    else:
        found = [path for path in sub_folders(folder) if _is_category(path)]
    if not found:
        raise nothing_found(
            folder, "category with train/good (or train/ok) in MVTec's form", recipe="mvtec_ad"
        )
    if categories is None:
        return found
    unknown = sorted(set(categories) - {path.name for path in found})
    if unknown:
        raise DatalistError(
            f"{folder} has no category {unknown}; it has {[path.name for path in found]}."
        )
    return [path for path in found if path.name in categories]


def _label(picture: Path, masks: dict[str, Path], folder: Path) -> str | list[str] | None:
    """A defective picture's masks: all in a folder of its name, or the one file; None without."""
    if several := _pictures(folder / picture.stem):
        return [str(path) for path in several]
    mask = masks.get(f"{picture.stem}_mask") or masks.get(picture.stem)
    return None if mask is None else str(mask)


def _check_kinds(category: Path, part: str) -> None:
    other = [kind.name for kind in sub_folders(category / part) if not _is_normal(kind)]
    if other:
        raise DatalistError(
            f"{category / part} should hold normal pictures only, in a folder named one of "
            f"{list(_NORMAL)}; it also has {first(other)}. Move that to test/."
        )


def _category_items(category: Path) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    bare: list[Path] = []
    for part, section in _SECTIONS.items():
        if part != "test":
            _check_kinds(category, part)
        for kind in sub_folders(category / part):
            truth = category / _MASKS / kind.name
            masks = {path.stem: path for path in _pictures(truth)}
            for picture in _pictures(kind):
                name = study_name(category.name, part, kind.name, picture.stem)
                item: dict[str, Any] = {
                    "image": str(picture),
                    "subject": name,
                    "study": name,
                    "section": section,
                    "category": category.name,
                    "kind": kind.name,
                    "anomalous": not _is_normal(kind),
                }
                if item["anomalous"]:
                    item["label"] = _label(picture, masks, truth)
                    if item["label"] is None:
                        bare.append(picture)
                items.append(item)
    if bare:
        truth, stem = category / _MASKS / bare[0].parent.name, bare[0].stem
        raise DatalistError(
            f"{len(bare)} defective test pictures of {category.name!r} have no mask: {first(bare)}. "
            f"Looked in {truth} for {stem}_mask.*, {stem}.* and a folder {stem}/. Add the masks, or "
            "move these pictures out of test/."
        )
    return items


def find_mvtec(
    source: str | Path, *, categories: Sequence[str] | None = None, split_file: str = "1cls"
) -> list[dict[str, Any]]:
    """List the pictures of MVTec AD, or of a data set in its form.

    Read are ``<category>/train/good``, ``test/<kind>`` and ``ground_truth/<kind>``; PNG, JPEG, BMP
    and TIFF. A picture ``000.png`` takes its mask from ``000_mask.*`` (MVTec AD, MPDD), ``000.*``
    (BTAD, whose folders are ``ok`` and ``ko``) or all pictures of the folder ``000/`` (MVTec LOCO).
    A folder with ``split_csv`` is VisA's: see :func:`multiad_med.data.layouts.visa.find_visa`.

    Args:
        source: folder of the categories, or of one category.
        categories: names of the categories wanted; without, all.
        split_file: of VisA only.

    Returns:
        Items with ``image``, ``subject`` and ``study`` (both ``bottle/test/crack/000``),
        ``category``, ``kind`` (folder name), ``anomalous``, ``section`` ("validation" only in
        LOCO), and for defective pictures ``label``: a path, or a list of paths in LOCO. In masks
        every value above 0 is defect; LOCO's values tell the defect, see :func:`loco_saturation`.

    Raises:
        DatalistError: when there is no category of this form or not the one named, a defective
            picture has no mask, ``train`` or ``validation`` has another folder than the normal
            one, or two pictures differ in their suffix only.
    """
    folder = existing_folder(source)
    if (folder / SPLIT_FOLDER).is_dir():
        return find_visa(folder, categories=categories, split_file=split_file)
    items: list[dict[str, Any]] = []
    for category in _category_folders(folder, categories):
        items += _category_items(category)
    if not items:
        raise nothing_found(folder, "pictures in train/good or test/", recipe="mvtec_ad")
    return by_study(items)


def loco_saturation(category: str | Path) -> dict[int, tuple[float, bool]]:
    """Read when a defect of MVTec LOCO counts as fully found, from ``defects_config.json``.

    The saturated per-region overlap (sPRO) divides the found area by this threshold, at most 1.

    Args:
        category: folder of one category.

    Returns:
        By pixel value of the masks, the threshold and whether it is a fraction of the defect's
        area (true) or a number of pixels of the published size (false).

    Raises:
        DatalistError: when the file is missing, is not JSON, or lacks a field.
    """
    path = existing_folder(category) / "defects_config.json"
    try:
        return {
            int(defect["pixel_value"]): (
                float(defect["saturation_threshold"]),
                bool(defect["relative_saturation"]),
            )
            for defect in json.loads(path.read_text(encoding="utf-8"))
        }
    except OSError as error:
        raise DatalistError(
            f"{path} cannot be read: {error.strerror}. Give the folder of one MVTec LOCO category."
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DatalistError(
            f"{path} is not MVTec LOCO's list of defects with pixel_value, saturation_threshold "
            f"and relative_saturation: {type(error).__name__} {error}. Restore the published file."
        ) from error
