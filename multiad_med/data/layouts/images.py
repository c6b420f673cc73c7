"""Pictures of no known data set: a folder of normal ones, or one with folders of anomalous ones."""

from __future__ import annotations

import warnings
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
    warn_of_unread,
)
from multiad_med.data.layouts.hints import looks_like
from multiad_med.data.layouts.masks import masks_beside

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


def _check_unsorted(folder: Path, pictures: list[Path], masks: int) -> None:
    """Refuse normal folders deeper down, warn of masks: without a normal folder all is normal."""
    for path in pictures:
        parts = path.relative_to(folder).parts[:-1]
        if any(part.lower() in _NORMAL for part in parts):
            depth = next(i for i, part in enumerate(parts) if part.lower() in _NORMAL)
            raise DatalistError(
                f"{folder} has normal images in {'/'.join(parts[: depth + 1])}, below other folders, so "
                f"that it is not clear what the rest is. Give {folder.joinpath(*parts[:depth])}."
            )
    if masks:
        warnings.warn(
            f"{folder}: {masks} masks passed over, and all {len(pictures)} images taken as normal, since "
            f"no sub-folder is named one of {list(_NORMAL)}. Move the normal images into {folder}/good "
            "and the others into another sub-folder.",
            stacklevel=2,
        )


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
    Masks lie beside their picture (``<name>_mask``, see
    :func:`multiad_med.data.layouts.masks.masks_beside`), or in ``masks``, ``mask``, ``ground_truth``
    or ``labels``, as ``<kind>/<name>`` or ``<name>``, with or without ``_mask`` after the name; all
    anomalous pictures have one, or none.

    Args:
        source: the folder.

    Returns:
        Items with ``image``, ``subject`` and ``study`` (both the path within the folder),
        ``anomalous``, ``kind`` (the sub-folder), ``section`` ("test", of anomalous pictures only) and
        ``label`` where there are masks; every value above 0 is defect.

    Raises:
        DatalistError: when there is no picture, the folder has a published layout, some anomalous
            pictures have a mask and some have not, pictures lie beside the sub-folders, or two
            differ in their suffix only.
    """
    folder = existing_folder(source)
    files = walk(folder)
    found = [path for path in files if is_picture(path)]
    hint = looks_like(path.relative_to(folder).as_posix() for path in found)
    if hint != "images":
        raise nothing_found(folder, "plain folder of PNG, JPEG, BMP or TIFF files", recipe="images")
    top = {path: path.relative_to(folder).parts[0] for path in found}
    masks = {
        path.relative_to(folder / name).with_suffix(""): path
        for path, name in top.items()
        if name.lower() in _MASK_FOLDERS and path.parent != folder
    }
    in_folders = set(masks.values())
    pictures, beside = masks_beside([path for path in found if path not in in_folders])
    sorted_out = any(top[path].lower() in _NORMAL for path in pictures)
    if sorted_out:
        _check_sorted(folder, pictures)
    else:
        _check_unsorted(folder, pictures, len(found) - len(pictures))
    warn_of_unread(folder, [path for path in files if not is_picture(path)], [], also="")
    items: list[dict[str, Any]] = []
    bare: list[Path] = []
    for path in pictures:
        anomalous = sorted_out and top[path].lower() not in _NORMAL
        inside = path.relative_to(folder)
        name = study_name(*inside.with_suffix("").parts)
        item: dict[str, Any] = {
            "image": str(path),
            "subject": name,
            "study": name,
            "anomalous": anomalous,
        }
        if sorted_out:
            item["kind"] = top[path]
        if anomalous:
            item["section"] = "test"
            if path in beside:
                item["label"] = [str(mask) for mask in beside[path]]
            elif mask := _mask(path, inside, masks):
                item["label"] = str(mask)
            else:
                bare.append(path)
        items.append(item)
    if bare and any("label" in item for item in items):
        raise DatalistError(
            f"{len(bare)} anomalous pictures have no mask, while others have: {first(bare)}. Put the "
            f"mask beside its picture as <name>_mask.png, or as <kind>/<name> into one of "
            f"{list(_MASK_FOLDERS)}; or remove all masks."
        )
    return by_study(items)
