"""What all layouts share: walking a tree, natural order, names, and errors."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

from multiad_med.data.study_files import DatalistError
from multiad_med.data.tree import is_visible, is_volume, natural_key, volume_name, walk
from multiad_med.datasets.hints import looks_like
from multiad_med.utils.suffixes import is_image

__all__ = [
    "NothingFoundError",
    "by_study",
    "case_name",
    "count_suffixes",
    "existing_folder",
    "first",
    "natural_key",
    "nothing_found",
    "study_name",
    "sub_folders",
    "walk",
    "warn_of_unread",
]

_OTHER_IMAGES = {".avif", ".gif", ".heic", ".jfif", ".jp2", ".pgm", ".ppm", ".tga", ".webp"}


class NothingFoundError(DatalistError):
    """A folder holds nothing of the layout that was looked for."""


def existing_folder(source: str | Path) -> Path:
    """Return the absolute path of a folder.

    Raises:
        DatalistError: when it does not exist or is a file.
    """
    folder = Path(source).expanduser().absolute()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatalistError(f"{folder} {what}; give the folder that holds the data set.")
    return folder


def sub_folders(folder: Path) -> list[Path]:
    """Return a folder's own sub-folders in natural order, hidden ones left out; none if it is missing."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_dir() and is_visible(path.name))
    return sorted(found, key=natural_key)


def warn_of_unread(
    folder: Path, files: Iterable[Path], items: Iterable[Mapping[str, Any]], *, also: str
) -> None:
    """Warn of the images that no item has, so that nothing is passed over silently.

    Args:
        folder: that was read, for the message.
        files: all that it holds.
        items: of its layout.
        also: a sentence on where they might be moved to.
    """
    used = {
        str(path)
        for item in items
        for key in ("image", "label")
        for path in ([item[key]] if isinstance(item.get(key), str) else item.get(key, ()))
    }
    files = list(files)
    unread = [path for path in files if is_image(path) and str(path) not in used]
    if unread:
        warnings.warn(
            f"{len(unread)} images or masks of {folder} passed over: {first(unread)}. {also}",
            stacklevel=2,
        )
    other = [path for path in files if path.suffix.lower() in _OTHER_IMAGES]
    if other:
        warnings.warn(
            f"{len(other)} images of {folder} passed over: {first(other)}. Only PNG, JPEG, BMP and "
            "TIFF are read; save them as PNG.",
            stacklevel=2,
        )


def case_name(path: Path) -> str:
    """Return a file's name without its suffix; ``.nii.gz`` counts as one."""
    return volume_name(path) if is_volume(path) else path.stem


def study_name(*parts: str) -> str:
    """Return a relative path of the parts that has only letters, digits, ``.``, ``_``, ``-`` and ``/``.

    Letters and digits of any script count, with their marks. It never leads out of the folder that it
    is joined to.
    """
    kept = (c if c in "._/-" or category(c)[0] in "LMN" else "_" for c in "/".join(parts))
    clean = "".join(kept).split("/")
    return "/".join("_" if part in (".", "..") else part for part in clean if part)


def first(names: Iterable[object], *, count: int = 3) -> str:
    """Return the first few of many names, for a message."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(texts[:count]) + more


def _suffix(path: Path) -> str:
    """Return a file's suffix in lower case; the last number of a DICOM identifier is none."""
    if path.name.lower().endswith(".nii.gz"):
        return ".nii.gz"
    suffix = path.suffix.lower()
    return "no suffix" if not suffix or suffix[1:].isdecimal() else suffix


def count_suffixes(folder: Path) -> str:
    """Count a tree's files by suffix, most frequent first: ``12 x .png, 1 x .csv``."""
    counts = Counter(_suffix(path) for path in walk(folder))
    return ", ".join(f"{n} x {suffix}" for suffix, n in counts.most_common(6)) or "no files"


def nothing_found(folder: Path, looked_for: str, *, recipe: str) -> NothingFoundError:
    """Return the error for a folder without the layout looked for; it says what the folder looks like.

    Args:
        looked_for: names and folders of the layout.
        recipe: the layout's own, which is no hint.
    """
    hint = looks_like(path.relative_to(folder).as_posix() for path in walk(folder))
    if hint is None or hint == recipe:
        advice = f"It holds {count_suffixes(folder)}."
    else:
        advice = f"It looks like the data of recipe {hint!r}; use that recipe."
    return NothingFoundError(f"{folder} holds no {looked_for}. {advice}")


def by_study(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the items after a check that no study occurs twice.

    Raises:
        DatalistError: naming the first study found twice, and both its files.
    """
    seen: dict[str, Mapping[str, Any]] = {}
    for item in items:
        other = seen.setdefault(item["study"], item)
        if other is not item:
            paths = [
                i["image"] if isinstance(i["image"], str) else i["image"][0] for i in (other, item)
            ]
            raise DatalistError(
                f"Study {item['study']!r} was found twice: {paths[0]} and {paths[1]}. "
                "Remove one of them, or give the folder of one copy."
            )
    return [dict(item) for item in items]
