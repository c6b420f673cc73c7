"""Run a recipe: find, divide, transform in parallel, store; safe to interrupt, resumed when repeated."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from multiad_med.data.datalist import DATALIST_NAME, PATH_KEYS, STORE_NAME, shared_subjects
from multiad_med.data.errors import StudyError, study_errors
from multiad_med.data.splits import datalist_content
from multiad_med.data.store import (
    INDEX_NAME,
    STUDIES,
    index_rows,
    slice_shape,
    study_about,
    study_path,
    write_index,
    write_study,
)
from multiad_med.io.atomic import atomic_path, write_json
from multiad_med.io.scores import file_sha256
from multiad_med.preparation.recipes import Recipe
from multiad_med.preparation.sheet import save_contact_sheet

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h

__all__ = ["PreparationError", "Summary", "prepare"]


class PreparationError(RuntimeError):
    """A preparation cannot be done, or not into this folder."""


@dataclass
class Summary:
    """What a preparation did.

    Attributes:
        written, unchanged: studies prepared now, and those that were there already.
        slices: number of slices by (section, state).
        failures: messages of the studies that could not be prepared.
        warnings: what should be known about the split.
        seconds: wall time.
    """

    written: int = 0
    unchanged: int = 0
    slices: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.written} studies prepared, {self.unchanged} unchanged, {len(self.failures)} failed, "
            f"in {self.seconds:.1f} s"
        ]
        for section in ("training", "validation", "test"):
            states = {state: n for (name, state), n in self.slices.items() if name == section}
            counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"
            lines.append(f"  {section}: {counts}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  failed: {failure}" for failure in self.failures]
        return "\n".join(lines)


def _files(item: Mapping[str, Any]) -> list[Path]:
    """All files that an item is made from, each once."""
    paths: dict[Path, None] = {}
    for key in PATH_KEYS:
        for name in ensure_tuple(item[key]) if key in item else ():
            path = Path(name)
            inner = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
            paths.update(dict.fromkeys(inner))
    return list(paths)


def _signature(files: Iterable[Path]) -> list[list[Any]]:
    """Size and time of each file: enough to see at once that nothing changed."""
    return [[str(f), (stat := f.stat()).st_size, stat.st_mtime_ns] for f in files]


class _Preparation(Dataset):
    """Prepares and writes the study that is asked for; a ``DataLoader`` asks in parallel."""

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
        """Index, outcome (``written``, ``unchanged`` or ``failed``), message."""
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
        except ValueError:
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
                torch.set_num_threads(1)
                _keep_freed_memory()
            self.transforms = self.recipe.transforms(self.source)
        prepared = self.transforms(dict(item))
        about = {**wanted, "signature": _signature(files), "source_sha256": _hash(files)}
        with atomic_path(path) as temporary:
            write_study(temporary, prepared, bits=self.recipe.bits, about=about)
        return "written"


def _keep_freed_memory() -> None:
    """Let this process reuse the memory of its last volume instead of returning it.

    Every array of a CT is hundreds of megabytes, which glibc asks of the kernel anew each time, page
    by page: a third of the whole time. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _hash(files: Iterable[Path]) -> str:
    """SHA-256 of one file, or of the hashes of several."""
    hashes = [file_sha256(f) for f in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _check_target(target: Path, recipe: Recipe) -> None:
    about = target / STORE_NAME
    if about.is_file():
        name = json.loads(about.read_text(encoding="utf-8")).get("recipe")
        if name != recipe.name:
            raise PreparationError(
                f"{target} holds slices of the recipe {name!r}; choose another folder for "
                f"{recipe.name!r}."
            )
    elif target.is_dir() and any(target.iterdir()) and not (target / DATALIST_NAME).is_file():
        raise PreparationError(
            f"{target} is not empty and holds no prepared slices; choose another."
        )


def _check_names(items: list[dict[str, Any]]) -> None:
    twice = [name for name, n in Counter(str(item["study"]) for item in items).items() if n > 1]
    if twice:
        raise PreparationError(f"Two studies have one name, first: {twice[:3]}.")
    for item in items:
        parts = Path(str(item["study"])).parts
        if ".." in parts or Path(str(item["study"])).is_absolute():
            raise PreparationError(
                f"A study's name must stay inside the folder: {item['study']!r}."
            )


def prepare(
    recipe: Recipe,
    source: str | Path,
    target: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Summary:
    """Prepare a data set.

    ``target`` receives ``datalist.json`` (the split), ``studies/*.safetensors`` (the slices),
    ``index.csv`` (one row per slice), ``contact_sheet.png`` and, last, ``store.json``. Interrupted,
    the same call goes on where it stopped; repeated, it prepares only studies whose files, recipe
    or section changed. A study that cannot be prepared is reported and passed over.

    Args:
        recipe: which, with its settings.
        source: the data set's folder or table.
        target: folder for the slices, new or from an earlier run of the same recipe.
        workers: processes that prepare studies side by side; none means one per processor, 0 this
            process itself.
        progress: whether to show a progress bar.

    Raises:
        DatalistError: when ``source`` does not hold this data set, or the split is faulty.
        PreparationError: when ``target`` holds something else, or not one study could be prepared.
    """
    start = time.perf_counter()
    source, target = Path(source), Path(target)
    sections = recipe.sections(source)
    items = [item for section in sections.values() for item in section]
    _check_names(items)
    _check_target(target, recipe)
    target.mkdir(parents=True, exist_ok=True)
    summary = Summary()
    clashes = shared_subjects(sections)
    if clashes:
        summary.warnings.append(
            f"{len(clashes)} subjects are in two splits, as published (first: {clashes[0]}): what is "
            "calibrated on validation is not independent of test"
        )
    content = datalist_content(
        sections, name=recipe.name, description=recipe.title, modality=recipe.modality
    )
    write_json(target / DATALIST_NAME, content)
    # The store is complete once it says so. What a killed run left half-written goes.
    (target / STORE_NAME).unlink(missing_ok=True)
    for partial in list((target / STUDIES).rglob(".partial-*")):
        shutil.rmtree(partial, ignore_errors=True)
    if workers is None:
        workers = os.cpu_count() or 1
    loader = DataLoader(
        _Preparation(recipe, source.absolute(), target, items),
        batch_size=None,
        num_workers=min(workers, len(items)),
        collate_fn=_as_is,
    )
    failed: set[int] = set()
    for index, outcome, message in tqdm(
        loader, desc=f"preparing {recipe.name}", unit="study", disable=not progress
    ):
        if outcome == "failed":
            failed.add(index)
            summary.failures.append(message)
        elif outcome == "written":
            summary.written += 1
        else:
            summary.unchanged += 1
    kept = [item for index, item in enumerate(items) if index not in failed]
    if not kept:
        raise PreparationError(
            f"None of {len(items)} studies could be prepared. First: {summary.failures[0]}"
        )
    _finish(recipe, target, kept, summary, content["split_sha256"])
    summary.seconds = time.perf_counter() - start
    return summary


def _as_is(result: Any) -> Any:
    return result


def _finish(
    recipe: Recipe, target: Path, items: list[dict[str, Any]], summary: Summary, split: str
) -> None:
    rows = recipe.slice_sections(list(index_rows(target, items)))
    for row in rows:
        summary.slices[row["section"], row["state"]] += 1
    if not rows:
        raise PreparationError("No study has a slice that the recipe keeps.")
    with atomic_path(target / INDEX_NAME) as temporary:
        write_index(temporary, rows)
    shapes: dict[tuple[int, ...], str] = {}
    for row in rows:
        if row["position"] == 0:
            shapes.setdefault(slice_shape(target, row["study"]), row["study"])
    if len(shapes) > 1:
        raise PreparationError(
            f"Slices of different shapes (channels, rows, columns), each with a study: {shapes}. Set "
            "the recipe's number of channels."
        )
    channels, *size = next(iter(shapes))
    save_contact_sheet(target / "contact_sheet.png", target, rows, upright=recipe.upright)
    write_json(
        target / STORE_NAME,
        {
            "recipe": recipe.name,
            "recipe_sha256": recipe.sha256,
            "settings": recipe.settings,
            "upright": recipe.upright,
            "bits": recipe.bits,
            "channels": int(channels),
            "size": [int(n) for n in size],
            "split_sha256": split,
            "slices": {f"{section} {state}": n for (section, state), n in summary.slices.items()},
            "failures": summary.failures,
            "warnings": summary.warnings,
            "versions": {name: version(name) for name in ("multiad-med", "monai", "torch")},
        },
    )
