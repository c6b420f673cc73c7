"""A source of names, and a worker on it, for tests of what is around them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiad_med.serving import FetchedStudy, FoundStudies, FoundStudy, StudyLedger, Worker


class ListedSource:
    """Studies that are mere names; what is stored is appended to a file, a line each."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.names = list(names)
        self.folder = folder
        self.released: list[str] = []

    def find(self) -> FoundStudies:
        return FoundStudies([FoundStudy(name, "1", "") for name in self.names])

    def fetch(self, study: FoundStudy) -> FetchedStudy:
        return FetchedStudy(study.key, (Path(study.key),))

    def store(self, files: Sequence[Path]) -> None:
        line = "".join(f"{path.read_text()}\n" for path in files).encode()
        descriptor = os.open(self.folder / "stored", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line)
        os.close(descriptor)

    def release(self, study: FoundStudy) -> None:
        self.released.append(study.key)


def write(folder: Path, study: FetchedStudy) -> list[Path]:
    path = folder / f"result-{study.image}"
    path.write_text(str(study.image))
    return [path]


def worker(ledger: StudyLedger, source: Any, process: Any = None, **options: Any) -> Worker:
    folder = ledger.path.parent
    return Worker(
        ledger=ledger,
        source=source,
        process=process or (lambda study: write(folder, study)),
        **{"interval": 0.1, "retry_delay": 0.0, **options},
    )


def stored(folder: Path) -> list[str]:
    return sorted((folder / "stored").read_text().split())
