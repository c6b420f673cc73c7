"""Run a recipe: find, divide, transform in parallel, store; safe to interrupt, resumed when repeated."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from tqdm import tqdm

from multiad_med.data.datalist import CACHE_NAME, DATALIST_NAME, SPLITS, shared_subjects
from multiad_med.data.slice_cache import INDEX_NAME, index_rows, slice_shape, write_index
from multiad_med.data.splits import datalist_content
from multiad_med.preparation.prepare_study import StudyPreparation
from multiad_med.preparation.recipes import Recipe
from multiad_med.preparation.sheet import save_contact_sheet
from multiad_med.preparation.unpacking import unpacked
from multiad_med.utils import processors, terminable, worker_errors
from multiad_med.utils.atomic import atomic_path, write_json
from multiad_med.utils.errors import MultiADError, file_errors
from multiad_med.utils.json_files import read_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["PreparationError", "Summary", "prepare"]


class PreparationError(MultiADError, RuntimeError):
    """A preparation cannot be done, or not in this folder."""


@dataclass
class Summary:
    """What a preparation did.

    Attributes:
        written, unchanged: studies prepared now, and those that were there already.
        slices: number of slices by (split, state).
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
        for split in ("training", "validation", "test"):
            states = {state: n for (name, state), n in self.slices.items() if name == split}
            counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"
            lines.append(f"  {split}: {counts}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  failed: {failure}" for failure in self.failures]
        return "\n".join(lines)


def _check_target(source: Path, target: Path, recipe: Recipe) -> None:
    if target.resolve().is_relative_to(source.resolve()):
        raise PreparationError(f"{target} lies in the source {source}; choose a folder outside it.")
    if not target.is_dir() or not any(target.iterdir()):
        return
    name = None
    # Written first, and by a preparation only with the hash of its split.
    if (target / DATALIST_NAME).is_file():
        content = read_json(target / DATALIST_NAME)
        name = content.get("name") if "split_sha256" in content else None
    if name is None:
        raise PreparationError(
            f"{target} is not empty and holds no prepared slices; choose another."
        )
    if name != recipe.name:
        raise PreparationError(
            f"{target} holds slices of the recipe {name!r}; choose another folder for {recipe.name!r}."
        )


@contextmanager
def _alone_in(target: Path) -> Iterator[None]:
    """Lock the folder against a second preparation; the lock ends with the process."""
    if fcntl is None:
        yield
        return
    handle = os.open(target, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PreparationError(
                f"Another preparation is writing to {target}; let it finish."
            ) from error
        yield
    finally:
        os.close(handle)


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
    spread: Callable[[StudyPreparation], Iterable[tuple[int, str, str]]] | None = None,
) -> Summary:
    """Prepare a data set.

    ``target`` receives ``datalist.json`` (the split), ``studies/*.safetensors`` (the slices),
    ``index.csv`` (one row per slice), ``contact_sheet.png`` and, last, ``cache.json``. Interrupted,
    the same call goes on where it stopped; repeated, it prepares only studies whose files, recipe
    or split changed. A study that cannot be prepared is reported and passed over.

    Args:
        recipe: the recipe, with its settings.
        source: the data set's folder, table or archive; archives, and CIFAR's and Fashion-MNIST's
            arrays, are unpacked beside ``target`` first.
        target: folder for the slices, new or from an earlier run of the same recipe.
        workers: processes that prepare studies side by side; none means one per processor, 0 this
            process itself.
        progress: whether to show a progress bar.
        spread: gives what a preparation returns of each study, in any order, instead of these processes.

    Raises:
        ArchiveError: when an archive is damaged or not to be trusted.
        DatalistError: when ``source`` does not hold this data set, or the split is faulty.
        PreparationError: when ``target`` holds something else, or not one study could be prepared.
    """
    start = time.perf_counter()
    source, target = Path(source), Path(target)
    _check_target(source, target, recipe)
    source = unpacked(source, target)
    splits = recipe.splits(source)
    items = [item for split in splits.values() for item in split]
    _check_names(items)
    with file_errors(target, "made"):
        target.mkdir(parents=True, exist_ok=True)
    with terminable(), _alone_in(target):
        # The cache is complete once this file is there. What a killed run left half-written is removed.
        (target / CACHE_NAME).unlink(missing_ok=True)
        for partial in list(target.rglob(".partial-*")):
            shutil.rmtree(partial, ignore_errors=True)
        _write_datalist(target, recipe, splits)
        summary = _prepare_studies(recipe, source, target, items, workers, progress, spread)
    summary.seconds = time.perf_counter() - start
    return summary


def _write_datalist(
    target: Path, recipe: Recipe, splits: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """Write the datalist and return the hash of its split."""
    content = datalist_content(
        splits, name=recipe.name, description=recipe.title, modality=recipe.modality
    )
    write_json(target / DATALIST_NAME, content)
    return str(content["split_sha256"])


def _prepare_studies(
    recipe: Recipe,
    source: Path,
    target: Path,
    items: list[dict[str, Any]],
    workers: int | None,
    progress: bool,
    spread: Callable[[StudyPreparation], Iterable[tuple[int, str, str]]] | None,
) -> Summary:
    summary = Summary()
    if workers is None:
        workers = processors()
    preparation = StudyPreparation(recipe, source.absolute(), target.absolute(), items)
    outcomes: Iterable[tuple[int, str, str]]
    if spread is not None:
        outcomes = spread(preparation)
    else:
        outcomes = DataLoader(
            preparation,
            batch_size=None,
            num_workers=min(workers, len(items)),
            collate_fn=_as_is,
        )
    failed: set[int] = set()
    advice = f"The same command goes on where it stopped; give it fewer workers than {workers}."
    with worker_errors(PreparationError, advice):
        for index, outcome, message in tqdm(
            outcomes,
            desc=f"preparing {recipe.name}",
            unit="study",
            total=len(items),
            disable=not progress,
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
    _finish(recipe, target, kept, summary)
    return summary


def _as_is(result: Any) -> Any:
    return result


def _finish(recipe: Recipe, target: Path, items: list[dict[str, Any]], summary: Summary) -> None:
    rows = recipe.slice_splits(list(index_rows(target, items)))
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for item in items:
        splits[item["split"]].append(item)
    split = _write_datalist(target, recipe, splits)
    subjects = {name: [r for r in rows if r["split"] == name] for name in SPLITS}
    clashes = shared_subjects(subjects)
    if clashes:
        summary.warnings.append(
            f"{len(clashes)} subjects are in two splits, as published (first: {clashes[0]}): what is "
            "calibrated on validation is not independent of test"
        )
    for row in rows:
        summary.slices[row["split"], row["state"]] += 1
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
            "what decides on channels, such as colour or sequences, or give data of one kind."
        )
    channels, *size = next(iter(shapes))
    save_contact_sheet(target / "contact_sheet.png", target, rows, upright=recipe.upright)
    write_json(
        target / CACHE_NAME,
        {
            "recipe": recipe.name,
            "recipe_sha256": recipe.sha256,
            "settings": recipe.settings,
            "upright": recipe.upright,
            "bits": recipe.bits,
            "channels": int(channels),
            "size": [int(n) for n in size],
            "split_sha256": split,
            "slices": {f"{split} {state}": n for (split, state), n in summary.slices.items()},
            "failures": summary.failures,
            "warnings": summary.warnings,
            "versions": {name: version(name) for name in ("multiad-med", "monai", "torch")},
        },
    )
