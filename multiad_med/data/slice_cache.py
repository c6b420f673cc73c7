"""Prepared slices on disk: one memory-mapped file per study, written whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.utils.data import Dataset

from multiad_med.data.datalist import CACHE_NAME, SPLITS
from multiad_med.transforms import SliceState
from multiad_med.utils.errors import FileError, InputError, MultiADError, file_errors
from multiad_med.utils.json_files import read_json
from multiad_med.utils.tensors import plain_tensor

__all__ = ["CacheError", "SliceCache", "is_slice_cache", "read_study", "write_study"]

INDEX_NAME = "index.csv"
STUDIES = "studies"
INDEX_COLUMNS = (
    "split",
    "subject",
    "study",
    "slice",
    "state",
    "foreground_area",
    "lesion_area",
    "category",
    "kind",
    "position",
    "source_sha256",
)
_FOREGROUND, _LESION = 1, 2
_MOST_MAPPINGS = 8192  # Linux allows a process 65,530


class CacheError(MultiADError, ValueError):
    """A folder of prepared slices cannot be used."""


def is_slice_cache(folder: str | Path) -> bool:
    """Tell whether a folder holds prepared slices.

    Raises:
        CacheError: when version 0.1 prepared it, whose index has other columns.
    """
    found = (Path(folder) / CACHE_NAME).is_file()
    if not found and (Path(folder) / "store.json").is_file():
        raise CacheError(
            f"{folder} was prepared by multiad-med 0.1. Prepare it again: `multiad prepare` with the "
            "same recipe, source and output."
        )
    return found


def study_path(cache: str | Path, study: str) -> Path:
    """Return the file of a study's slices."""
    return Path(cache) / STUDIES / f"{study}.safetensors"


def _quantise(image: torch.Tensor, bits: int) -> NDArray[np.uint8 | np.uint16]:
    """Scale [0, 1] to the full range of 8 or 16 bits, rounded."""
    top = (1 << bits) - 1
    values = plain_tensor(image).numpy(force=True)
    scaled = np.multiply(values, np.float32(top))
    scaled += np.float32(0.5)
    return scaled.astype(np.uint16 if bits == 16 else np.uint8)


def write_study(
    path: Path, prepared: Mapping[str, Any], *, bits: int, about: dict[str, Any]
) -> int:
    """Write a study's slices to ``path``, which the caller renames to its final name.

    Args:
        path: a temporary name.
        prepared: ``image (N, C, H, W)`` in [0, 1], ``state (N,)``, ``slices (N,)``; optionally
            ``foreground`` and ``label`` ``(N, 1, H, W)`` and ``affine (4, 4)``, RAS voxel to mm.
        bits: 8 or 16 per channel and pixel; 16 where the source has more than 8.
        about: what else is kept with it, as JSON.

    Returns:
        The number of slices.

    Raises:
        InputError: when the arrays do not belong together.
    """
    if bits not in (8, 16):
        raise InputError(f"bits must be 8 or 16, got {bits}.")
    image = prepared["image"]
    count, size = image.shape[0], tuple(image.shape[-2:])
    masks = np.zeros((count, *size), np.uint8)
    areas = {}
    for key, bit in (("foreground", _FOREGROUND), ("label", _LESION)):
        inside = np.full((count, *size), key == "foreground")
        if key in prepared:
            mask = plain_tensor(prepared[key])
            if tuple(mask.shape) != (count, 1, *size):
                raise InputError(
                    f"{key} has shape {tuple(mask.shape)}, expected {(count, 1, *size)}."
                )
            np.greater(mask[:, 0].numpy(force=True), 0, out=inside)
        masks |= inside.view(np.uint8) * np.uint8(bit)
        areas[key] = np.array([np.count_nonzero(slice_) for slice_ in inside], dtype=np.int32)
    arrays = {
        "images": np.ascontiguousarray(_quantise(image, bits)),
        "masks": masks,
        "slices": np.asarray(prepared["slices"], dtype=np.int32),
        "states": np.asarray(prepared["state"], dtype=np.int8),
        "foreground_areas": areas["foreground"],
        "lesion_areas": areas["label"],
    }
    for name in ("slices", "states"):
        if arrays[name].shape != (count,):
            raise InputError(f"{name} has shape {arrays[name].shape}, expected {(count,)}.")
    content = dict(about)
    if "affine" in prepared:
        content["affine"] = np.asarray(prepared["affine"], dtype=float).tolist()
    try:
        save_file(arrays, path, metadata={"about": json.dumps(content)})
    except SafetensorError as error:  # what the system says, as of a full disk
        raise FileError(f"{path} cannot be written: {error}") from error
    return count


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CacheError(
            f"{path}: not a readable file of slices: {error}. Prepare the data again."
        ) from error


def study_about(path: Path) -> dict[str, Any]:
    """Return the ``about`` that :func:`write_study` kept with a study.

    Raises:
        CacheError: when the file cannot be read.
    """
    metadata = _open(path).metadata() or {}
    try:
        return json.loads(metadata["about"])
    except (KeyError, json.JSONDecodeError) as error:
        raise CacheError(f"{path}: holds slices in an unknown format.") from error


def read_study(path: str | Path) -> dict[str, Any]:
    """Return all slices of a study.

    Returns:
        ``image (N, C, H, W)`` in the stored integers, ``foreground`` and ``label`` ``(N, 1, H, W)``
        booleans, ``slices``, ``state`` and ``about``.
    """
    file = _open(Path(path))
    masks = file.get_tensor("masks")[:, None]
    return {
        "image": file.get_tensor("images"),
        "foreground": masks & _FOREGROUND > 0,
        "label": masks & _LESION > 0,
        "slices": file.get_tensor("slices"),
        "state": file.get_tensor("states"),
        "about": study_about(Path(path)),
    }


def _slices(path: Path) -> tuple[Any, Any]:
    """Return lazy arrays of a study's images and masks; the mapping stays open, its file does not."""
    file = _open(path)
    return file.get_slice("images"), file.get_slice("masks")


def read_slice(cache: str | Path, study: str, position: int) -> dict[str, NDArray[Any]]:
    """Return a slice: ``image (C, H, W)`` as stored integers, ``foreground`` and ``label (H, W)``."""
    images, masks = _slices(study_path(cache, study))
    mask = masks[position]
    return {
        "image": images[position],
        "foreground": mask & _FOREGROUND > 0,
        "label": mask & _LESION > 0,
    }


def slice_shape(cache: str | Path, study: str) -> tuple[int, ...]:
    """Return the shape ``(C, H, W)`` of a study's slices."""
    return tuple(_open(study_path(cache, study)).get_slice("images").get_shape()[1:])


def index_rows(cache: str | Path, items: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return one row per slice of the studies, in the columns of :data:`INDEX_COLUMNS`."""
    for item in items:
        path = study_path(cache, str(item["study"]))
        file, about = _open(path), study_about(path)
        slices, states = file.get_tensor("slices"), file.get_tensor("states")
        foreground = file.get_tensor("foreground_areas")
        lesion = file.get_tensor("lesion_areas")
        for position in range(len(slices)):
            yield {
                "split": item["split"],
                "subject": item["subject"],
                "study": item["study"],
                "slice": int(slices[position]),
                "state": SliceState(int(states[position])).name.lower(),
                "foreground_area": int(foreground[position]),
                "lesion_area": int(lesion[position]),
                "category": item.get("category", ""),
                "kind": item.get("kind", ""),
                "position": position,
                "source_sha256": about["source_sha256"],
            }


def write_index(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of :func:`index_rows` as CSV."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, INDEX_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


class SliceCache(Dataset):
    """Slices of a prepared folder, read from disk when they are asked for.

    Nothing is held in memory but the index. Several slices asked for at once (``__getitems__``,
    which ``DataLoader`` uses) are converted in one block.

    Args:
        folder: what ``multiad prepare`` wrote.
        split: ``training``, ``validation`` or ``test``.
        states: which slices; none means normal ones only, except in ``test``, which gives all.
        channels: which of the stored channels, in this order; none means all. Four MR sequences
            must be cut to the three that the networks take.
        labels: whether lesion masks are read too.
        categories: of an industrial or mixed set; none means all.

    Raises:
        CacheError: when the folder holds no usable cache, or no such slice.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        split: str = "training",
        states: Sequence[SliceState | str] | None = None,
        channels: Sequence[int] | None = None,
        labels: bool = False,
        categories: Sequence[str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        if not is_slice_cache(self.folder):
            raise CacheError(
                f"{self.folder} holds no prepared slices (no {CACHE_NAME}). Make them with "
                "`multiad prepare`, and let an interrupted one finish."
            )
        if split not in SPLITS:
            raise CacheError(f"Unknown split {split!r}; choose one of {SPLITS}.")
        self.about = read_json(self.folder / CACHE_NAME)
        if channels is not None and not all(0 <= c < self.about["channels"] for c in channels):
            raise CacheError(
                f"channels {list(channels)} asked for; {self.folder} has {self.about['channels']}."
            )
        self.channels = None if channels is None else list(channels)
        self.labels = labels
        if states is None:
            states = list(SliceState) if split == "test" else [SliceState.NORMAL]
        wanted = {s.name.lower() if isinstance(s, SliceState) else str(s) for s in states}
        self._wanted = (split, frozenset(wanted), categories)
        # A few shared strings and small numbers per slice, whatever the size of the index.
        self._rows = [
            (
                intern(r["study"]),
                intern(r["subject"]),
                intern(r["state"]),
                int(r["slice"]),
                int(r["position"]),
            )
            for r in self._read_index()
        ]
        if not self._rows:
            raise CacheError(
                f"{self.folder} has no slice of split {split!r} in the states {sorted(wanted)}"
                + (f" and categories {list(categories)}." if categories else ".")
            )
        self._scale = np.float32(1 / ((1 << self.about["bits"]) - 1))
        self._mapped: dict[str, tuple[Any, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open mappings, which another process makes for itself."""
        return {**self.__dict__, "_mapped": {}}

    def _slices_of(self, study: str) -> tuple[Any, Any]:
        mapped = self._mapped.get(study)
        if mapped is None:
            if len(self._mapped) >= _MOST_MAPPINGS:
                self._mapped.clear()
            mapped = self._mapped[study] = _slices(study_path(self.folder, study))
        return mapped

    def _read_index(self) -> Iterator[dict[str, str]]:
        split, wanted, categories = self._wanted
        path = self.folder / INDEX_NAME
        with file_errors(path), path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                if (
                    row["split"] == split
                    and row["state"] in wanted
                    and (categories is None or row["category"] in categories)
                ):
                    yield row

    @property
    def index(self) -> list[dict[str, str]]:
        """The rows of the index, one per slice, read anew."""
        return list(self._read_index())

    @property
    def subjects(self) -> list[str]:
        """The subject of each slice."""
        return [subject for _, subject, _, _, _ in self._rows]

    @property
    def studies(self) -> list[str]:
        """The study of each slice."""
        return [study for study, _, _, _, _ in self._rows]

    @property
    def stored_bytes(self) -> int:
        """Bytes that these slices and their masks take on the disk."""
        height, width = self.about["size"]
        pixel = self.about["channels"] * self.about["bits"] // 8 + 1
        return len(self) * height * width * pixel

    def file_of(self, index: int) -> Path:
        """Return the file that a slice lies in, with those of its study."""
        return study_path(self.folder, self._rows[index][0])

    @property
    def data(self) -> list[dict[str, str]]:
        """The index, under the name that MONAI's data sets have for what they hold."""
        return self.index

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a slice: ``image (C, H, W)`` in [0, 1], ``foreground (1, H, W)``, and its origin."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return several slices, converted together."""
        rows = [self._rows[i] for i in indices]
        count, size = len(rows), self.about["size"]
        picked = self.channels or list(range(self.about["channels"]))
        images = np.empty((count, len(picked), *size), np.float32)
        masks = np.empty((count, 1, *size), np.uint8)
        for i, (study, _, _, _, position) in enumerate(rows):
            image, mask = self._slices_of(study)
            stored = image[position] if self.channels is None else image[position][self.channels]
            np.multiply(stored, self._scale, out=images[i])
            masks[i, 0] = mask[position]
        image_tensor = torch.from_numpy(images)
        mask_tensor = torch.from_numpy(masks)
        foreground = (mask_tensor & _FOREGROUND).bool()
        label = (mask_tensor & _LESION).bool() if self.labels else None
        return [
            {
                "image": image_tensor[i],
                "foreground": foreground[i],
                "subject": subject,
                "study": study,
                "slice": number,
                "state": state,
                **({} if label is None else {"label": label[i]}),
            }
            for i, (study, subject, state, number, _) in enumerate(rows)
        ]
