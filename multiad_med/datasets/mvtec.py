"""MVTec AD and its relatives: MVTec LOCO, BTAD, MPDD, VisA, and own trees of the same form."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.layout_files import (
    NothingFoundError,
    by_study,
    existing_folder,
    first,
    natural_key,
    nothing_found,
    study_name,
    sub_folders,
    walk,
    warn_of_unread,
)
from multiad_med.datasets.mask_names import masks_beside
from multiad_med.datasets.visa import SPLIT_FOLDER, find_visa
from multiad_med.utils.suffixes import is_image

__all__ = ["find_mvtec", "loco_saturation"]

_NORMAL = ("good", "ok", "normal")
_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_MASKS = "ground_truth"


def _images_in(folder: Path) -> list[Path]:
    """Return the images that lie directly in a folder."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if is_image(p) and not p.name.startswith("."))
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
        tests = [
            path / "test" for path in (folder, *sub_folders(folder)) if (path / "test").is_dir()
        ]
        if tests:
            raise NothingFoundError(
                f"{folder} holds no category with train/good (or train/ok). Put normal images there to "
                f"train; to infer images only, give {first(tests, count=1)}."
            )
        inner = (path for path in walk(folder) if len(path.relative_to(folder).parts) > 4)
        if deeper := next((p.parents[3] for p in inner if _is_category(p.parents[2])), None):
            raise NothingFoundError(
                f"{folder} and its sub-folders hold no category with train/good; one lies deeper. Give "
                f"{deeper}."
            )
        raise nothing_found(
            folder, "category with train/good (or train/ok) in MVTec's form", recipe="mvtec_ad"
        )
    if categories is None:
        _warn_of_others(folder, found)
        return found
    unknown = sorted(set(categories) - {path.name for path in found})
    if unknown:
        raise DatalistError(
            f"{folder} has no category {unknown}; it has {[path.name for path in found]}."
        )
    return [path for path in found if path.name in categories]


def _warn_of_others(folder: Path, categories: Sequence[Path]) -> None:
    """Warn of the sub-folders that hold images and are no categories."""
    if folder in categories:
        return
    others = [path for path in sub_folders(folder) if path not in categories]
    names = [path.name for path in others if any(map(is_image, walk(path)))]
    if names:
        warnings.warn(
            f"{folder}: {first(names)} passed over, as they have no folder train/good (or train/ok).",
            stacklevel=2,
        )


def _label(inside: Path, masks: dict[Path, Path], truth: Path) -> str | list[str] | None:
    """Return a defective image's masks: all in a folder of its name, or one file, or None.

    Args:
        inside: the image, relative to its kind's folder.
        masks: below ``truth``, by their path in it without suffix.
        truth: folder of the kind's masks.
    """
    if several := _images_in(truth / inside.with_suffix("")):
        return [str(path) for path in several]
    stem = inside.with_suffix("")
    mask = masks.get(stem.with_name(f"{stem.name}_mask")) or masks.get(stem)
    return None if mask is None else str(mask)


def _check_kinds(category: Path, part: str) -> None:
    if loose := _images_in(category / part):
        kinds = "good" if part != "test" else "good or in a folder of their defect"
        raise DatalistError(
            f"{len(loose)} images lie in {category / part} itself: {first(p.name for p in loose)}. Move "
            f"them into {category / part}/{kinds}."
        )
    other = [kind.name for kind in sub_folders(category / part) if not _is_normal(kind)]
    if other and part != "test" and (category / _MASKS).is_dir():
        raise DatalistError(
            f"{category / part} should hold normal images only, in a folder named one of "
            f"{list(_NORMAL)}; it also has {first(other)}, of which it is not clear whether the masks in "
            f"{category / _MASKS} are theirs. Move that to test/."
        )
    if other and part != "test":
        warnings.warn(
            f"{category / part} has {first(other)} beside normal images: they are for the test only.",
            stacklevel=4,
        )


def _kind_items(kind: Path, category: Path, part: str) -> list[dict[str, Any]]:
    """List the images of a kind, in its folder and below."""
    truth = category / _MASKS / kind.name
    files = [p for p in walk(truth) if is_image(p)] if truth.is_dir() else []
    masks = {path.relative_to(truth).with_suffix(""): path for path in files}
    images, beside = masks_beside([path for path in walk(kind) if is_image(path)])
    items = []
    for image in images:
        inside = image.relative_to(kind)
        name = study_name(category.name, part, kind.name, *inside.with_suffix("").parts)
        item: dict[str, Any] = {
            "image": str(image),
            "subject": name,
            "study": name,
            "split": _SPLITS[part] if _is_normal(kind) else "test",
            "category": category.name,
            "kind": kind.name,
            "anomalous": not _is_normal(kind),
        }
        if item["anomalous"]:
            label = _label(inside, masks, truth) or [str(mask) for mask in beside.get(image, ())]
            if label:
                item["label"] = label
        items.append(item)
    return items


def _category_items(category: Path) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for part in _SPLITS:
        _check_kinds(category, part)
        for kind in sub_folders(category / part):
            items += _kind_items(kind, category, part)
    bare = [Path(i["image"]) for i in items if i["anomalous"] and "label" not in i]
    files = walk(category)
    masks = [p for p in files if is_image(p) and p.relative_to(category).parts[0] == _MASKS]
    if bare and (masks or any("label" in item for item in items)):
        truth, stem = category / _MASKS / bare[0].parent.name, bare[0].stem
        raise DatalistError(
            f"{len(bare)} defective test images of {category.name!r} have no mask, while there are "
            f"masks: {first(bare)}. Looked in {truth} for {stem}_mask.*, {stem}.* and a folder {stem}/. "
            f"Add the masks, move these images out of test/, or remove {category / _MASKS}."
        )
    normal = [category / _MASKS / name for name in _NORMAL]  # masks of normal images are empty
    read = [path for path in files if not any(path.is_relative_to(folder) for folder in normal)]
    beside = {p for folder in ("train", "validation", "test") for p in walk(category / folder)}
    warn_of_unread(
        category,
        (path for path in read if path not in beside or not is_image(path)),
        items,
        also="Images belong in train/good, test/good and test/<defect>, masks of defects in "
        f"{_MASKS}/<defect> under the name of their image.",
    )
    return items


def find_mvtec(
    source: str | Path, *, categories: Sequence[str] | str | None = None, split_file: str = "1cls"
) -> list[dict[str, Any]]:
    """List the images of MVTec AD, or of a data set in its form.

    It reads ``<category>/train/good``, ``test/<kind>`` and ``ground_truth/<kind>``; PNG, JPEG, BMP
    and TIFF, in sub-folders of these too. An image ``000.png`` takes its mask from ``000_mask.*``
    (MVTec AD, MPDD), ``000.*`` (BTAD, whose folders are ``ok`` and ``ko``) or all images of the folder
    ``000/`` (MVTec LOCO), or from beside it. A category may have no masks at all: they are for
    evaluation only.
    A folder with ``split_csv`` is VisA's: see :func:`multiad_med.datasets.visa.find_visa`.

    Args:
        source: folder of the categories, or of one category.
        categories: names of the categories wanted, or one; without, all.
        split_file: of VisA only.

    Returns:
        Items with ``image``, ``subject`` and ``study`` (both ``bottle/test/crack/000``),
        ``category``, ``kind`` (folder name), ``anomalous``, ``split`` ("validation" only in
        LOCO), and for defective images that have masks ``label``: a path, or a list of paths. In masks
        every value above 0 is defect; LOCO's values tell the defect, see :func:`loco_saturation`.

    Raises:
        DatalistError: when there is no category of this form or not the one named, some defective
            images have no mask while others have, ``train`` or ``validation`` has another folder
            than the normal one and there are masks (without masks its images are for the test, with a
            warning), images lie in ``train`` or ``test`` itself, or two differ in their
            suffix only.
    """
    folder = existing_folder(source)
    categories = None if categories is None else ensure_tuple(categories)  # one may be a plain text
    if (folder / SPLIT_FOLDER).is_dir():
        return find_visa(folder, categories=categories, split_file=split_file)
    items: list[dict[str, Any]] = []
    for category in _category_folders(folder, categories):
        items += _category_items(category)
    if not items:
        raise nothing_found(folder, "images in train/good or test/", recipe="mvtec_ad")
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
