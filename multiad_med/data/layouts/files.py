"""What every layout reader shares: walking a tree, natural order, names, and errors."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import PICTURE_SUFFIXES, DatalistError
from multiad_med.data.layouts.hints import looks_like

__all__ = [
    "NothingFoundError",
    "by_study",
    "case_name",
    "count_suffixes",
    "existing_folder",
    "first",
    "is_picture",
    "natural_key",
    "nothing_found",
    "study_name",
    "sub_folders",
    "walk",
    "warn_of_unread",
]

_OTHER_IMAGES = {".avif", ".gif", ".heic", ".jfif", ".jp2", ".pgm", ".ppm", ".tga", ".webp"}
_JUNK = {"__MACOSX"}


class NothingFoundError(DatalistError):
    """A folder holds nothing of the layout looked for."""


def existing_folder(source: str | Path) -> Path:
    """The absolute path of a folder.

    Raises:
        DatalistError: when it does not exist or is a file.
    """
    folder = Path(source).expanduser().absolute()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DatalistError(f"{folder} {what}; give the folder that holds the data set.")
    return folder


def natural_key(path: str | Path) -> tuple[Any, ...]:
    """Sort key that puts ``volume-2`` before ``volume-10``, folder by folder."""
    parts = [re.split(r"(\d+)", part) for part in Path(path).parts]
    return tuple(tuple(int(p) if p.isdecimal() else p for p in part) for part in parts), str(path)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name not in _JUNK


def walk(folder: Path) -> list[Path]:
    """All files below a folder in natural order; links are followed, hidden files left out.

    Archives made on a Mac carry a ``._name`` beside each ``name``, which would pass for data.
    """
    found: list[Path] = []
    seen: dict[str, str] = {}
    for root, folders, names in os.walk(folder, followlinks=True):
        other = seen.setdefault(os.path.realpath(root), root)
        if other != root:
            warnings.warn(f"{root} passed over: a link to {other}, which is read.", stacklevel=2)
            folders.clear()
            continue
        folders[:] = [name for name in folders if _visible(name)]
        found += [Path(root, name) for name in names if _visible(name)]
    return sorted(found, key=natural_key)


def sub_folders(folder: Path) -> list[Path]:
    """A folder's own sub-folders in natural order, hidden ones left out; none if it is missing."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_dir() and _visible(path.name))
    return sorted(found, key=natural_key)


def is_picture(path: Path) -> bool:
    """Whether a file is PNG, JPEG, BMP or TIFF by its suffix, in whatever case."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def warn_of_unread(
    folder: Path, files: Iterable[Path], items: Iterable[Mapping[str, Any]], *, also: str
) -> None:
    """Warn of the images that no item has, so that nothing is passed over silently.

    Args:
        folder: that was read, for the message.
        files: all that it holds.
        items: of its reader.
        also: where they might be moved to, a sentence.
    """
    used = {
        str(path)
        for item in items
        for key in ("image", "label")
        for path in ([item[key]] if isinstance(item.get(key), str) else item.get(key, ()))
    }
    files = list(files)
    unread = [path for path in files if is_picture(path) and str(path) not in used]
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
    """A file's name without its suffix; ``.nii.gz`` counts as one."""
    name = path.name
    return name[:-7] if name.lower().endswith(".nii.gz") else path.stem


def study_name(*parts: str) -> str:
    """A relative path of the parts that has only letters, digits, ``.``, ``_``, ``-`` and ``/``.

    It never leads out of the folder that it is joined to.
    """
    clean = re.sub(r"[^A-Za-z0-9._/-]", "_", "/".join(parts)).split("/")
    return "/".join("_" if part in (".", "..") else part for part in clean if part)


def first(names: Iterable[object], *, count: int = 3) -> str:
    """The first few of many names, for a message."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(texts[:count]) + more


def _suffix(path: Path) -> str:
    """A file's suffix in lower case; the last number of a DICOM identifier is none."""
    if path.name.lower().endswith(".nii.gz"):
        return ".nii.gz"
    suffix = path.suffix.lower()
    return "no suffix" if not suffix or suffix[1:].isdecimal() else suffix


def count_suffixes(folder: Path) -> str:
    """What a tree holds, by suffix, most frequent first: ``12 x .png, 1 x .csv``."""
    counts = Counter(_suffix(path) for path in walk(folder))
    return ", ".join(f"{n} x {suffix}" for suffix, n in counts.most_common(6)) or "no files"


def nothing_found(folder: Path, looked_for: str, *, recipe: str) -> NothingFoundError:
    """The error for a folder without the layout looked for; says what the folder looks like.

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
    """The items, once it is sure that no study occurs twice.

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
