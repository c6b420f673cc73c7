"""How folders are walked: links followed, hidden files left out, nothing else passed over."""

from __future__ import annotations

import os
import re
import warnings
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from multiad_med.utils.errors import InputError
from multiad_med.utils.suffixes import ITK_SUFFIXES, NIFTI_PAIR_SUFFIXES, NIFTI_SUFFIXES

__all__ = ["is_visible", "is_volume", "matches", "natural_key", "volume_name", "walk"]

_JUNK = {"__MACOSX"}
# Of a pair the voxels stand for both files.
_SUFFIXES = [s for s in (*NIFTI_SUFFIXES, *NIFTI_PAIR_SUFFIXES, *ITK_SUFFIXES) if "hdr" not in s]
_VOLUME = re.compile(rf"({'|'.join(map(re.escape, _SUFFIXES))})$", re.IGNORECASE)


def natural_key(path: str | Path) -> tuple[Any, ...]:
    """Return a sort key that puts ``volume-2`` before ``volume-10``, folder by folder."""
    parts = [re.split(r"(\d+)", part) for part in Path(path).parts]
    return tuple(tuple(int(p) if p.isdecimal() else p for p in part) for part in parts), str(path)


def is_visible(name: str) -> bool:
    """Tell whether a file or folder is neither hidden nor what a Mac adds to archives."""
    return not name.startswith(".") and name not in _JUNK


def walk(folder: Path) -> list[Path]:
    """Return all files below a folder in natural order; links are followed, hidden files left out.

    A missing folder has none. A link that leads nowhere is listed like a file. Archives made
    on a Mac carry a ``._name`` beside each ``name``, which would pass for data.

    Raises:
        InputError: when a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            return  # there is nothing in it
        raise InputError(f"{error.filename} cannot be read: {error.strerror}.") from error

    found: list[Path] = []
    seen: dict[str, str] = {}
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        other = seen.setdefault(os.path.realpath(root), root)
        if other != root:
            warnings.warn(f"{root} passed over: a link to {other}, which is read.", stacklevel=2)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if is_visible(name))
        found += [Path(root, name) for name in names if is_visible(name)]
    return sorted(found, key=natural_key)


def is_volume(path: Path) -> bool:
    """Tell whether a file is a volume by its suffix, in whatever case: NIfTI, MetaImage or NRRD."""
    return _VOLUME.search(path.name) is not None


def volume_name(path: Path) -> str:
    """Return a volume's file name without its suffix; any other name as it is."""
    return _VOLUME.sub("", path.name)


def matches(path: PurePath, pattern: str) -> bool:
    """Tell whether a relative path matches a glob, in which ``**`` is any number of folders.

    The suffix of a volume matches in whatever case.
    """
    lowered = path.with_name(_VOLUME.sub(lambda suffix: suffix.group().lower(), path.name))
    return any(_match(p.parts, PurePath(pattern).parts) for p in (path, lowered))


def _match(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])
