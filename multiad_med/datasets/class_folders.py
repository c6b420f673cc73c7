"""Classification data sets with a folder for each class: CIFAR, Fashion-MNIST, Intel's scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiad_med.datasets.layout_files import (
    NothingFoundError,
    by_study,
    existing_folder,
    first,
    natural_key,
    nothing_found,
    study_name,
    walk,
    warn_of_unread,
)
from multiad_med.utils.suffixes import is_image

__all__ = ["find_classes"]

_SPLITS = {
    **dict.fromkeys(("train", "training", "seg_train"), "training"),
    **dict.fromkeys(("test", "testing", "seg_test"), "test"),
}
_WITHOUT_CLASS = "seg_pred"  # of Intel's scenes


def find_classes(source: str | Path) -> list[dict[str, Any]]:
    """List the images of a classification data set, ``train/<class>`` and ``test/<class>``.

    Intel's scenes (``seg_train/seg_train/<class>``) are read too, their ``seg_pred`` is left out.
    Folders in a class's folder belong to it, such as CIFAR-100's classes in its superclasses.
    Which classes are normal is for :class:`multiad_med.data.ClassSplit` to say.

    Args:
        source: folder of both parts, or one above it.

    Returns:
        Items with ``image``, ``subject`` and ``study`` (both ``test/cat/00007``), ``kind`` (the class)
        and ``split``, classes in the order of their names.

    Raises:
        DatalistError: when there is no image of a class in either part.
    """
    folder = existing_folder(source)
    files = walk(folder)
    items: list[dict[str, Any]] = []
    for path in filter(is_image, files):
        parts = path.relative_to(folder).with_suffix("").parts
        named = [n for n, name in enumerate(parts[:-1]) if name.lower() in _SPLITS]
        if not named:
            continue
        place = named[0]
        while place + 1 in named:  # seg_train/seg_train; a class inside a class may be a train
            place += 1
        inside = parts[place + 1 :]
        if len(inside) < 2:
            continue
        split = _SPLITS[parts[place].lower()]
        name = study_name({"training": "train"}.get(split, split), *inside)
        items.append(
            {
                "image": str(path),
                "subject": name,
                "study": name,
                "kind": inside[0],
                "split": split,
            }
        )
    if {item["split"] for item in items} != {"training", "test"}:
        looked_for = "images in train/<class> and in test/<class>"
        if packed := [path for path in files if path.name.endswith((".tar.gz", ".zip"))]:
            raise NothingFoundError(
                f"{folder} holds no {looked_for}, but {first(packed)}. Give that file as the source."
            )
        raise nothing_found(folder, looked_for, recipe="intel_scenes")
    read = (path for path in files if _WITHOUT_CLASS not in path.relative_to(folder).parts)
    warn_of_unread(folder, read, items, also="Images belong into train/<class> and test/<class>.")
    return by_study(sorted(items, key=lambda item: natural_key(item["kind"])))
