"""What a result was made from: hashes of files and of networks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai.utils import ensure_tuple
from torch import nn

from multiad_med.data.study_files import is_result
from multiad_med.utils.errors import file_errors

__all__ = ["file_sha256", "state_sha256"]


def _files(path: Path) -> Iterable[Path]:
    """Return the file itself, or the visible files of a folder that are no results, by name."""
    if not path.is_dir():
        return [path]
    inside = (p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in inside if not is_result(p))


def file_sha256(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> str:
    """Return the SHA-256 of a file, of a folder's own files in order of name, or of several paths."""
    digest = hashlib.sha256()
    for source in ensure_tuple(path):
        for file in _files(Path(source).expanduser()):
            with file_errors(file), file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def state_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of a network's state dict: names, then values, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
