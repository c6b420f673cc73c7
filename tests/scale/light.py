"""Stages that load nothing, for tests of what Ray does when a worker is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def read(table: Any) -> Any:
    """Return the studies as they are."""
    return table


class Same:
    """An actor that returns the studies as they are."""

    def __call__(self, table: Any) -> Any:
        """Return the studies."""
        return table


class Mortal:
    """Ends its own process, as lack of memory does: once on any study, always on a poisonous one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, table: Any) -> Any:
        """Return the studies, if nothing ends the process."""
        first = self.folder / "died"
        poisonous = any(b"poison" in study for study in table["study"].to_pylist())
        if poisonous or not first.is_file():
            first.touch()
            with (self.folder / "deaths").open("a") as stream:
                stream.write("poison\n" if poisonous else "once\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return table
