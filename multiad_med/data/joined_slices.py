"""Several folders of prepared slices as one data set, such as brains, livers and retinas."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from multiad_med.data.datalist import CACHE_NAME
from multiad_med.data.slice_cache import CacheError, SliceCache, is_slice_cache
from multiad_med.utils.json_files import read_json

__all__ = ["JoinedSlices", "joined_name", "prepared_size", "slice_caches"]

_GREY, _COLOUR = 1, 3


def slice_caches(source: str | Path) -> dict[str, Path]:
    """Return the folders of prepared slices that a folder holds, by name.

    Args:
        source: folder whose sub-folders `multiad prepare` wrote, two at least.

    Returns:
        None of them where the source is something else, such as one folder of prepared slices.

    Raises:
        CacheError: when there are several, and other folders beside them.
    """
    folder = Path(source)
    if not folder.is_dir() or is_slice_cache(folder):
        return {}
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {path.name: path for path in inside if is_slice_cache(path)}
    if len(found) < 2:
        return {}
    if others := [path.name for path in inside if path.name not in found]:
        raise CacheError(
            f"{folder} holds prepared slices in {list(found)}, but {others[0]} holds none (no "
            f"{CACHE_NAME}). Let its preparation finish, or move it elsewhere."
        )
    return found


def prepared_size(source: str | Path) -> list[int] | None:
    """Return rows and columns of prepared slices; None where the source holds none.

    Args:
        source: folder of prepared slices, or one that holds several such folders.

    Raises:
        CacheError: when several folders hold slices of different sizes.
    """
    found = {"": Path(source)} if is_slice_cache(source) else slice_caches(source)
    sizes = {name: list(read_json(path / CACHE_NAME)["size"]) for name, path in found.items()}
    if not sizes:
        return None
    size = next(iter(sizes.values()))
    if any(own != size for own in sizes.values()):
        raise CacheError(
            f"{source} holds slices of different sizes: {sizes}. Prepare all with one size."
        )
    return size


def joined_name(cache: str, name: str) -> str:
    """Return the name of a subject or a study among those of several caches."""
    return f"{cache}/{name}"


class JoinedSlices(Dataset):
    """Slices of several prepared folders, one folder after the other.

    Each folder is a category. Subjects and studies are named after their folder (``brain/p01``), so that
    equal names in two folders stay apart. Where some slices are grey and others have three channels,
    grey ones become three equal channels.

    Args:
        caches: by name, all of one size.

    Raises:
        CacheError: when sizes differ, channels cannot be brought to one number, or a cache holds tiles.
    """

    def __init__(self, caches: Mapping[str, SliceCache]) -> None:
        self.caches = dict(caches)
        sizes = {name: cache.about["size"] for name, cache in caches.items()}
        if len({tuple(size) for size in sizes.values()}) > 1:
            raise CacheError(f"Slices of different sizes cannot be joined: {sizes}.")
        tiles = [name for name, cache in caches.items() if cache.about["settings"].get("tile")]
        if tiles:
            raise CacheError(f"{tiles} hold tiles, which cannot be joined. Prepare them without.")
        counts = {name: _channels(cache) for name, cache in caches.items()}
        self._channels = max(counts.values())
        if not {*counts.values()} <= {_GREY, _COLOUR}:
            raise CacheError(
                f"Slices with these numbers of channels cannot be joined: {counts}. Prepare them with "
                f"{_GREY} or {_COLOUR}."
            )
        self._ends = list(accumulate(len(cache) for cache in caches.values()))

    @property
    def index(self) -> list[dict[str, str]]:
        """The rows of all indices, with joined names and categories, read anew."""
        return [row for name, cache in self.caches.items() for row in _renamed(name, cache.index)]

    @property
    def data(self) -> list[dict[str, str]]:
        """The index, under the name that MONAI's data sets have for what they hold."""
        return self.index

    @property
    def subjects(self) -> list[str]:
        """The subject of each slice."""
        return [
            joined_name(name, subject)
            for name, cache in self.caches.items()
            for subject in cache.subjects
        ]

    @property
    def studies(self) -> list[str]:
        """The study of each slice."""
        return [
            joined_name(name, study)
            for name, cache in self.caches.items()
            for study in cache.studies
        ]

    @property
    def stored_bytes(self) -> int:
        """Bytes that these slices and their masks take on the disk."""
        return sum(cache.stored_bytes for cache in self.caches.values())

    def file_of(self, index: int) -> Path:
        """Return the file that a slice lies in, with those of its study."""
        cache, position = self._place(index)
        return self.caches[cache].file_of(position)

    def _place(self, index: int) -> tuple[str, int]:
        """Return the cache that a slice is of, and its index there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        name = list(self.caches)[number]
        return name, index - (self._ends[number] - len(self.caches[name]))

    def __len__(self) -> int:
        """Return the number of slices."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a slice: see :meth:`SliceCache.__getitem__`."""
        name, position = self._place(index)
        item = self.caches[name][position]
        image = item["image"]
        return {
            **item,
            "image": image.expand(self._channels, -1, -1).clone(),
            "subject": joined_name(name, item["subject"]),
            "study": joined_name(name, item["study"]),
        }


def _channels(cache: SliceCache) -> int:
    return len(cache.channels or range(cache.about["channels"]))


def _renamed(name: str, rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    rows = list(rows)
    several = len({row["category"] for row in rows}) > 1
    return [
        {
            **row,
            "subject": joined_name(name, row["subject"]),
            "study": joined_name(name, row["study"]),
            "category": joined_name(name, row["category"]) if several else name,
        }
        for row in rows
    ]
