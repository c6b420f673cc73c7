"""Pictures of no known data set: a folder of normal ones, or one with folders of anomalous ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiad_med.data.datalist import DatalistError
from multiad_med.data.layouts.files import (
    by_study,
    existing_folder,
    first,
    is_picture,
    nothing_found,
    study_name,
    walk,
)
from multiad_med.data.layouts.hints import looks_like

__all__ = ["find_images"]

_NORMAL = ("normal", "good", "ok")
_MASK_FOLDERS = ("masks", "mask", "ground_truth", "labels")


def _mask(picture: Path, inside: Path, masks: dict[Path, Path]) -> Path | None:
    """The mask of a picture, under its path within the mask folder or its mere name."""
    for where in (inside.parent, Path()):
        for stem in (picture.stem, f"{picture.stem}_mask"):
            if found := masks.get(where / stem):
                return found
    return None


def _check_sorted(folder: Path, pictures: list[Path]) -> None:
    loose = [path.name for path in pictures if path.parent == folder]
    if loose:
        raise DatalistError(
            f"{folder} has sub-folders of normal and other pictures, and {len(loose)} pictures of "
            f"neither: {first(loose)}. Move them into one of the sub-folders."
        )


def find_images(source: str | Path) -> list[dict[str, Any]]:
    """List the pictures of a folder: PNG, JPEG, BMP and TIFF.

    With a sub-folder ``normal``, ``good`` or ``ok``, its pictures are normal and those of the other
    sub-folders are anomalous, one kind per folder. Without one, every picture is taken as normal.
    Masks lie in ``masks``, ``mask``, ``ground_truth`` or ``labels``, as ``<kind>/<name>`` or
    ``<name>``, with or without ``_mask`` after the name; all anomalous pictures have one, or none.

    Args:
        source: the folder.

    Returns:
        Items with ``image``, ``subject`` and ``study`` (both the path within the folder),
        ``anomalous``, ``kind`` (the sub-folder), ``section`` ("training" for normal, "test" for
        anomalous pictures) and ``label`` where there are masks; every value above 0 is defect.

    Raises:
        DatalistError: when there is no picture, the folder has a published layout, some anomalous
            pictures have a mask and some have not, pictures lie beside the sub-folders, or two
            differ in their suffix only.
    """
    folder = existing_folder(source)
    pictures = [path for path in walk(folder) if is_picture(path)]
    hint = looks_like(path.relative_to(folder).as_posix() for path in pictures)
    if hint != "images":
        raise nothing_found(folder, "plain folder of PNG, JPEG, BMP or TIFF files", recipe="images")
    top = {path: path.relative_to(folder).parts[0] for path in pictures}
    masks = {
        path.relative_to(folder / name).with_suffix(""): path
        for path, name in top.items()
        if name.lower() in _MASK_FOLDERS
    }
    sorted_out = any(name.lower() in _NORMAL for name in top.values())
    if sorted_out:
        _check_sorted(folder, pictures)
    items: list[dict[str, Any]] = []
    bare: list[Path] = []
    for path, kind in top.items():
        if kind.lower() in _MASK_FOLDERS:
            continue
        anomalous = sorted_out and kind.lower() not in _NORMAL
        inside = path.relative_to(folder)
        name = study_name(*inside.with_suffix("").parts)
        item: dict[str, Any] = {
            "image": str(path),
            "subject": name,
            "study": name,
            "section": "test" if anomalous else "training",
            "anomalous": anomalous,
        }
        if sorted_out:
            item["kind"] = kind
        if anomalous and masks:
            mask = _mask(path, inside, masks)
            if mask is None:
                bare.append(path)
            else:
                item["label"] = str(mask)
        items.append(item)
    if bare:
        raise DatalistError(
            f"{len(bare)} anomalous pictures have no mask, while there are masks: {first(bare)}. "
            f"Name the mask <kind>/<name> in one of {list(_MASK_FOLDERS)}."
        )
    return by_study(items)
