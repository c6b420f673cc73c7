"""Images of no known data set: a folder of normal ones, or one with folders of anomalous ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.hints import looks_like
from multiad_med.datasets.layout_files import (
    by_study,
    existing_folder,
    first,
    nothing_found,
    study_name,
    sub_folders,
    walk,
    warn_of_unread,
)
from multiad_med.datasets.mask_names import masks_beside
from multiad_med.utils.suffixes import is_image

__all__ = ["find_images"]

_NORMAL = ("normal", "good", "ok")
_ANOMALOUS = ("bad", "ng", "nok", "ko", "defect", "defects", "defective", "anomalous", "abnormal")
_MASK_FOLDERS = ("masks", "mask", "ground_truth", "labels")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class _Place:
    """Where an image lies: the split that its first or second folder names, and the other folders."""

    split: str | None
    folders: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The first of the folders; empty without any."""
        return self.folders[0] if self.folders else ""

    @property
    def normal(self) -> bool:
        """Whether the kind's name says normal."""
        return self.kind.lower() in _NORMAL


def _place(inside: Path) -> _Place:
    folders = inside.parts[:-1]
    for depth, name in enumerate(folders[:2]):
        if split := _SPLITS.get(name.lower()):
            return _Place(split, folders[:depth] + folders[depth + 1 :])
    return _Place(None, folders)


def _places(images: Sequence[Path], folder: Path) -> dict[Path, _Place]:
    """Return each image's place; splits count where there is one to train and one to test on."""
    places = {path: _place(path.relative_to(folder)) for path in images}
    found = {place.split for place in places.values()}
    unassigned = any(p.normal for p in places.values() if p.split is None)
    if "test" in found and ("training" in found or unassigned):
        return places
    return {path: _Place(None, path.relative_to(folder).parts[:-1]) for path in images}


def _mask(image: Path, place: _Place, masks: dict[Path, Path]) -> Path | None:
    """Return the mask of an image, under its path within the mask folder or its name alone."""
    for where in (Path(*place.folders), Path()):
        for stem in (image.stem, f"{image.stem}_mask"):
            if found := masks.get(where / stem):
                return found
    return None


def _check_nested(folder: Path, places: Mapping[Path, _Place]) -> None:
    """Refuse normal folders deeper down: it is not clear what the rest is."""
    for path, place in places.items():
        if not place.normal and any(name.lower() in _NORMAL for name in place.folders):
            parts = path.relative_to(folder).parts[:-1]
            depth = next(i for i, part in enumerate(parts) if part.lower() in _NORMAL)
            raise DatalistError(
                f"{folder} has normal images in {'/'.join(parts[: depth + 1])}, below other folders, so "
                f"that it is not clear what the rest is. Give {folder.joinpath(*parts[:depth])}."
            )


def _check_unsorted(folder: Path, places: Mapping[Path, _Place], masks: int) -> None:
    """Refuse an empty normal folder, and warn of what does not look normal but is taken as normal."""
    for name in sub_folders(folder):
        if name.name.lower() in _NORMAL:
            raise DatalistError(
                f"{name} holds no images, so that those of the other folders would be taken as normal. "
                f"Put normal images there, or remove it, or give one of the other folders."
            )
    kinds = {place.kind for place in places.values() if place.kind.lower() in _ANOMALOUS}
    if masks or kinds:
        found = [f"{masks} masks passed over"] if masks else []
        found += [f"a folder is named {first(sorted(kinds))}"] if kinds else []
        warnings.warn(
            f"{folder}: {', '.join(found)}, and all {len(places)} images taken as normal, since "
            f"no sub-folder is named one of {list(_NORMAL)}. Move the normal images into {folder}/good "
            "and the others into another sub-folder.",
            stacklevel=3,
        )


def _check_sorted(folder: Path, places: Mapping[Path, _Place]) -> None:
    loose = [
        path.relative_to(folder)
        for path, place in places.items()
        if not place.folders and place.split not in ("training", "validation")
    ]
    if loose:
        raise DatalistError(
            f"{folder} has sub-folders of normal and other images, and {len(loose)} images of "
            f"neither: {first(loose)}. Move them into one of the sub-folders."
        )


def _is_sorted(places: Iterable[_Place]) -> bool:
    """Tell whether folders show kinds: a normal one, or some in ``test`` beside loose training images."""
    places = list(places)
    trained = any(place.split == "training" and not place.folders for place in places)
    return any(p.normal or (trained and p.split == "test" and p.folders) for p in places)


def find_images(source: str | Path) -> list[dict[str, Any]]:
    """List the images of a folder: PNG, JPEG, BMP and TIFF.

    With a sub-folder ``normal``, ``good`` or ``ok``, its images are normal and those of the other
    sub-folders are anomalous, one kind per folder. Without one, every image is taken as normal.
    Folders ``train`` and ``test`` may be above or below those (``good/train``, ``test/bad``); images
    in ``train`` itself are normal.
    Masks lie beside their image (``<name>_mask``, see
    :func:`multiad_med.datasets.mask_names.masks_beside`), or in ``masks``, ``mask``, ``ground_truth``
    or ``labels``, as ``<kind>/<name>`` or ``<name>``, with or without ``_mask`` after the name; all
    anomalous images have one, or none.

    Args:
        source: the folder.

    Returns:
        Items with ``image``, ``subject`` and ``study`` (both the path within the folder),
        ``anomalous``, ``kind`` (the sub-folder), ``split`` ("test" of anomalous images, of others
        what ``train``, ``validation`` or ``test`` says, where there are both a part to train on and
        one to test on) and ``label`` where there are masks; every value above 0 is defect.

    Raises:
        DatalistError: when there is no image, the folder has a published layout, some anomalous
            images have a mask and others have none, images lie beside the sub-folders, a normal folder
            is empty or lies below others, or two images differ in their suffix only.
    """
    folder = existing_folder(source)
    files = walk(folder)
    found = [path for path in files if is_image(path)]
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
    images, beside = masks_beside([path for path in found if path not in in_folders])
    places = _places(images, folder)
    sorted_out = _is_sorted(places.values())
    _check_nested(folder, places)
    if sorted_out:
        _check_sorted(folder, places)
    else:
        _check_unsorted(folder, places, len(found) - len(images))
    warn_of_unread(folder, [path for path in files if not is_image(path)], [], also="")
    items: list[dict[str, Any]] = []
    bare: list[Path] = []
    for path, place in places.items():
        anomalous = sorted_out and bool(place.folders) and not place.normal
        name = study_name(*path.relative_to(folder).with_suffix("").parts)
        item: dict[str, Any] = {
            "image": str(path),
            "subject": name,
            "study": name,
            "anomalous": anomalous,
        }
        if sorted_out:
            item["kind"] = place.kind or "good"
        if anomalous or place.split:
            item["split"] = "test" if anomalous else place.split
        if anomalous:
            if path in beside:
                item["label"] = [str(mask) for mask in beside[path]]
            elif mask := _mask(path, place, masks):
                item["label"] = str(mask)
            else:
                bare.append(path)
        items.append(item)
    if bare and any("label" in item for item in items):
        raise DatalistError(
            f"{len(bare)} anomalous images have no mask, while others have: {first(bare)}. Put the "
            f"mask beside its image as <name>_mask.png, or as <kind>/<name> into one of "
            f"{list(_MASK_FOLDERS)}; or remove all masks."
        )
    return by_study(items)
