"""Short hashes by which a model recognises images that it has seen."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from multiad_med.data.datalist import first_path
from multiad_med.data.joined_slices import JoinedSlices, joined_name
from multiad_med.data.slice_cache import SliceCache, study_about, study_path
from multiad_med.data.slice_dataset import SliceDataset
from multiad_med.data.study_files import is_result
from multiad_med.utils.errors import file_errors

__all__ = ["KEPT", "hashes_by_name", "image_hash", "image_hashes", "study_hash"]

KEPT = 20_000
"""Most hashes that a card keeps; for more images, those of a random choice."""

_LENGTH = 16  # hexadecimal digits, 8 bytes


def _files(path: Path) -> list[Path]:
    """Return the file, or the visible files of a DICOM series given as a folder."""
    if not path.is_dir():
        return [path]
    return [
        p for p in path.iterdir() if p.is_file() and not p.name.startswith(".") and not is_result(p)
    ]


def _digest(file: Path) -> str:
    with file_errors(file), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def image_hash(item: Mapping[str, Any]) -> str:
    """Return the first 8 bytes of the SHA-256 of an item's image; names and mask do not matter.

    For several files (a DICOM series, sequences) it is the SHA-256 of their hashes, in any order.

    Args:
        item: of a datalist.

    Raises:
        FileError: when a file cannot be read.
    """
    paths = [Path(name) for name in ensure_tuple(item["image"])]
    digests = sorted(_digest(file) for path in paths for file in _files(path))
    if len(digests) > 1:
        digests = [hashlib.sha256("".join(digests).encode()).hexdigest()]
    return digests[0][:_LENGTH] if digests else ""


def study_hash(cache: str | Path, study: str) -> str:
    """Return the :func:`image_hash` of the image that a cache's study was prepared from."""
    about = study_about(study_path(cache, study))
    # Older caches have no `image_hash`; of a study of one file, this is the same.
    return str(about.get("image_hash") or about["source_sha256"])[:_LENGTH]


def _chosen(studies: Sequence[Any]) -> Sequence[Any]:
    if len(studies) <= KEPT:
        return studies
    return random.Random(0).sample(studies, KEPT)


def hashes_by_name(dataset: SliceCache | JoinedSlices | SliceDataset) -> dict[str, str]:
    """Return the hash of each image that slices come from, by its study's name or its path.

    Each file is read once; for prepared slices, the hash noted when they were made counts. Of more
    than :data:`KEPT` images, only that many are hashed.
    """
    if isinstance(dataset, JoinedSlices):
        return {
            joined_name(name, study): digest
            for name, cache in dataset.caches.items()
            for study, digest in hashes_by_name(cache).items()
        }
    if isinstance(dataset, SliceCache):
        studies = list(dict.fromkeys(row["study"] for row in dataset.index))
        return {study: study_hash(dataset.folder, study) for study in _chosen(studies)}
    return {first_path(item): image_hash(item) for item in _chosen(list(dataset.data))}


def image_hashes(dataset: SliceCache | JoinedSlices | SliceDataset) -> list[str]:
    """Return the hashes of :func:`hashes_by_name`, in ascending order."""
    return sorted(set(hashes_by_name(dataset).values()))
