"""JSON from files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from multiad_med.utils.errors import InputError, file_errors

__all__ = ["read_json"]


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileError: when it cannot be read.
        InputError: when it is not JSON.
    """
    try:
        with file_errors(path):
            return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a readable JSON file: {error}") from error
