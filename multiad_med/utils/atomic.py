"""Files that are there completely or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from multiad_med.utils.errors import MultiADError, file_errors

__all__ = ["atomic_path", "write_json", "write_state"]


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name in the same folder, and rename it to ``path`` if nothing went wrong.

    The temporary name keeps the file's suffixes, which writers choose the format by. After an
    exception nothing is left; after a kill or on a full disk the final name is untouched.

    Args:
        path: final name; its folder is made.

    Raises:
        FileError: when the file cannot be written, as on a full disk.
    """
    path = Path(path)
    with file_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent)
    with partial as folder, _written(path, folder):
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


@contextmanager
def _written(path: Path, folder: str) -> Iterator[None]:
    """Act as :func:`file_errors`, but leave an error that names a file elsewhere, such as one read."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if isinstance(error, MultiADError) or (named and not str(named).startswith(folder)):
            raise
        with file_errors(path, "written"):
            raise


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON atomically; NaN is refused, since it is not JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state with ``torch.save`` atomically.

    By way of memory, for torch takes a full disk for something else, or for nothing at all.
    """
    buffer = BytesIO()
    torch.save(dict(state), buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
