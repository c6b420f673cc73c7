"""One study of a recipe: read, transformed and stored, unless it is there already."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple
from torch.utils.data import Dataset, get_worker_info

from multiad_med.data.datalist import PATH_KEYS
from multiad_med.data.hashes import file_sha256
from multiad_med.data.image_hashes import image_hash
from multiad_med.data.slice_cache import CacheError, study_about, study_path, write_study
from multiad_med.data.study_errors import StudyError, study_errors
from multiad_med.preparation.recipes import Recipe
from multiad_med.utils import end_with_parent
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.memory import keep_freed_memory

__all__ = ["StudyPreparation"]


def _files(item: Mapping[str, Any]) -> list[Path]:
    """Return all files that an item is made from, each once."""
    paths: dict[Path, None] = {}
    for key in PATH_KEYS:
        for name in ensure_tuple(item[key]) if key in item else ():
            path = Path(name)
            inner = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
            paths.update(dict.fromkeys(inner))
    return list(paths)


def _signature(files: Iterable[Path]) -> list[list[Any]]:
    """Return size and time of each file: enough to see at once that nothing changed."""
    return [[str(f), (stat := f.stat()).st_size, stat.st_mtime_ns] for f in files]


class StudyPreparation(Dataset):
    """Prepares and writes studies by index; a ``DataLoader`` does so in parallel."""

    def __init__(
        self, recipe: Recipe, source: Path, target: Path, items: list[dict[str, Any]]
    ) -> None:
        self.recipe = recipe
        self.source = source
        self.target = target
        self.items = items
        self.key = recipe.sha256
        self.transforms: Any = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[int, str, str]:
        """Prepare a study; return index, outcome (``written``, ``unchanged`` or ``failed``), message."""
        item = self.items[index]
        try:
            with study_errors(item):
                return index, self._prepare(item), ""
        except StudyError as error:
            return index, "failed", str(error)

    def _unchanged(self, path: Path, wanted: Mapping[str, Any], files: list[Path]) -> bool:
        if not path.is_file():
            return False
        try:
            about = study_about(path)
        except CacheError:  # it is written again
            return False
        if {k: about.get(k) for k in wanted} != wanted:
            return False
        if about["signature"] == _signature(files):
            return True
        return about["source_sha256"] == _hash(files)

    def _prepare(self, item: Mapping[str, Any]) -> str:
        files = _files(item)
        path = study_path(self.target, str(item["study"]))
        wanted = {
            "recipe_sha256": self.key,
            "item": {k: v for k, v in item.items() if k not in PATH_KEYS},
        }
        if self._unchanged(path, wanted, files):
            return "unchanged"
        if self.transforms is None:
            if get_worker_info() is not None:
                end_with_parent()
                torch.set_num_threads(1)
                keep_freed_memory()
            self.transforms = self.recipe.transforms(self.source)
            # What is there now stays, so that collecting after each study costs little.
            gc.collect()
            gc.freeze()
        prepared = self.transforms(dict(item))
        about = {
            **wanted,
            "signature": _signature(files),
            "source_sha256": _hash(files),
            "image_hash": image_hash(item),
        }
        with atomic_path(path) as temporary:
            write_study(temporary, prepared, bits=self.recipe.bits, about=about)
        # MetaTensors refer to themselves: without this, several volumes wait to be collected.
        del prepared
        gc.collect()
        return "written"


def _hash(files: Iterable[Path]) -> str:
    """Return the SHA-256 of one file, or of the hashes of several."""
    hashes = [file_sha256(f) for f in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
