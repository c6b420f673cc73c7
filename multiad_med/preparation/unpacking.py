"""Archives and arrays of images, unpacked beside the slices before a recipe reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from multiad_med.data.hashes import file_sha256
from multiad_med.readers.archives import unpack
from multiad_med.readers.image_arrays import find_arrays, unpack_arrays

__all__ = ["unpacked"]

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def unpacked(source: Path, target: Path) -> Path:
    """Return the folder of a data set's files, unpacked where they are an archive or arrays.

    An archive goes to ``<target>-unpacked-<hash>``, once for each state of its file; arrays go to
    ``<folder>-images-<hash>`` beside the target, once for all targets there and each content.

    Args:
        source: archive, folder with or without arrays of images, or any other file.
        target: folder of the slices.

    Raises:
        ArchiveError: when an archive or array is damaged or not to be trusted.
    """
    if source.is_file() and source.name.lower().endswith(_ARCHIVES):
        # Named after the archive as it is now: another one is another folder.
        state = source.stat()
        key = _key(f"{source.name} {state.st_size} {state.st_mtime_ns}")
        folder = target.with_name(f"{target.name}-unpacked-{key}")
        source = folder if folder.is_dir() else unpack(source, folder)
    if source.is_dir() and (arrays := find_arrays(source)) is not None:
        key = _key(*(file_sha256(path) for path in sorted(arrays.iterdir()) if path.is_file()))
        folder = target.with_name(f"{arrays.name}-images-{key}")
        source = folder if folder.is_dir() else unpack_arrays(arrays, folder)
    return source


def _key(*parts: str) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:8]
