"""The teachers' pretrained files on their way to a machine without network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from multiad_med.networks import weights
from multiad_med.networks.architectures import build_extractor
from multiad_med.networks.weights import PRETRAINED, WeightsError, check_hash, file_hash
from multiad_med.utils.atomic import atomic_path

__all__ = ["SUMS", "export_weights", "import_weights"]

SUMS = "SHA256SUMS"
"""Name of the list of hashes, which ``sha256sum -c`` reads."""


def import_weights(files: Sequence[str | Path]) -> list[Path]:
    """Copy pretrained files into the cache, each under its right name, whatever it is called.

    A file is known by its SHA-256, and its keys and shapes must be its architecture's. Nothing is
    copied if one of the files is refused.

    Args:
        files: to be copied.

    Returns:
        The copies.

    Raises:
        FileError: when a file cannot be read or written.
        WeightsError: when it is not the file of any teacher, or damaged.
    """
    names: list[str] = []
    for file in files:
        digest = file_hash(Path(file))
        known = [name for name, entry in PRETRAINED.items() if digest.startswith(entry.known_hash)]
        if not known:
            wanted = [entry.filename for entry in PRETRAINED.values()]
            raise WeightsError(
                f"{file} is damaged, or not the file of a teacher: its SHA-256 starts with {digest[:8]}, "
                f"which must be at the end of one of these names: {wanted}."
            )
        names += known
        weights.load_pretrained(build_extractor(names[-1]), names[-1], file=file)
    copies = [weights.cache_dir() / PRETRAINED[name].filename for name in names]
    for file, copy in zip(files, copies, strict=True):
        _copy(Path(file), copy)
    return copies


def export_weights(folder: str | Path) -> list[Path]:
    """Copy all pretrained files of this machine, from cache and packages, into a folder.

    Beside them a list of their hashes is written, which ``sha256sum -c`` reads.

    Args:
        folder: is made; files in it of the same names are replaced.

    Returns:
        The copies.

    Raises:
        FileError: when a file cannot be read or written.
        WeightsError: when a file is damaged, or there is none.
    """
    found = {name: path for name in PRETRAINED if (path := weights.find_weights(name))}
    if not found:
        raise WeightsError("No pretrained files are here. `multiad weights fetch` gets them.")
    sums: dict[Path, str] = {}
    for name, path in found.items():
        copy = Path(folder) / PRETRAINED[name].filename
        _copy(check_hash(path, PRETRAINED[name].known_hash), copy)
        sums[copy] = file_hash(copy)
    with atomic_path(Path(folder) / SUMS) as temporary:
        lines = [f"{digest}  {copy.name}\n" for copy, digest in sums.items()]
        temporary.write_text("".join(lines), encoding="utf-8")
    return list(sums)


def _copy(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
