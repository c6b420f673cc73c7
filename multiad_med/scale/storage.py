"""Results in object storage, by way of a folder of the machine that makes them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from multiad_med.data import FailureKind, StudyError, StudyOutcome, StudyResults, StudyStatus
from multiad_med.data.datalist import first_path
from multiad_med.data.study_results import SCORES
from multiad_med.scale.fetch import check_scheme, private_folder
from multiad_med.utils.errors import InputError

__all__ = ["ObjectStorage", "StoredResults"]

_SUMMARY = "summary.json"
_PROBE = ".multiad-writable"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectStorage:
    """A place for results that fsspec writes to.

    A file is in a folder of this machine, as it is below the address, while it is used.

    Args:
        address: such as ``s3://bucket/maps``.
        folder: of :func:`multiad_med.scale.fetch.results_folder`.
    """

    address: str
    folder: Path

    def fetch(self, *paths: Path) -> None:
        """Bring files to the folder; what the storage does not have is not there either.

        Raises:
            StudyError: when they cannot be had.
        """
        for path in paths:
            with self._told("had", path) as (files, inside):
                private_folder(self.folder.parent)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                try:
                    files.get_file(inside, str(path))
                except FileNotFoundError:
                    path.unlink(missing_ok=True)

    def send(self, *paths: Path) -> None:
        """Put those files of the folder into the storage that are there, one after the other.

        Raises:
            StudyError: when they cannot be written.
        """
        for path in filter(Path.is_file, paths):
            with self._told("written", path) as (files, inside):
                try:
                    files.put_file(str(path), inside)
                except FileNotFoundError:  # of a server that has folders, as SFTP's
                    files.makedirs(os.path.dirname(inside), exist_ok=True)
                    files.put_file(str(path), inside)

    def remove(self, path: Path) -> None:
        """Remove a file from the storage, if it is there.

        Raises:
            StudyError: when it cannot be removed.
        """
        with self._told("removed", path) as (files, inside), suppress(FileNotFoundError):
            files.rm_file(inside)

    def remove_folder(self, folder: Path) -> None:
        """Remove all files below a folder from the storage, if there are some.

        Raises:
            StudyError: when they cannot be removed.
        """
        with self._told("removed", folder) as (files, inside), suppress(FileNotFoundError):
            files.rm(inside, recursive=True)

    def check(self) -> None:
        """Refuse an address where results cannot be written, or that holds anything else.

        Raises:
            InputError: saying why.
        """
        check_scheme(self.address)
        try:
            files, root = _opened(self.address)
            above = os.path.dirname(root)
            if above and files.exists(above):  # so that no bucket is made by mistake
                files.makedirs(root, exist_ok=True)
            files.pipe_file(f"{root}/{_PROBE}", b"")
            files.rm_file(f"{root}/{_PROBE}")
            files.invalidate_cache()
            others = set() if files.exists(f"{root}/{_SUMMARY}") else _names(files, root)
            earlier = others and files.glob(f"{root}/**/*_{SCORES}")
        except Exception as error:  # each storage has its own types
            raise InputError(
                f"--output {self.address} cannot be written to: {_reason(error)}"
            ) from error
        if others and not earlier:
            raise InputError(
                f"--output {self.address} holds other files, such as {min(others)}. Give a new address."
            )

    @contextmanager
    def _told(self, done: str, path: Path) -> Iterator[tuple[Any, str]]:
        name = Path(os.path.relpath(path, self.folder)).as_posix()
        try:
            if name.startswith(os.pardir):  # of a summary that somebody else wrote
                raise ValueError("it is not below the address")
            files, root = _opened(self.address)
            yield files, f"{root}/{name}"
        except Exception as error:  # each storage has its own types
            raise StudyError(
                f"{self.address}/{name} cannot be {done}: {_reason(error)}", kind=FailureKind.SYSTEM
            ) from error


def _opened(address: str) -> tuple[Any, str]:
    import fsspec

    files, root = fsspec.url_to_fs(address)
    return files, root.rstrip("/")


def _names(files: Any, root: str) -> set[str]:
    try:
        names = {PurePosixPath(name).name for name in files.ls(root, detail=False)}
    except FileNotFoundError:
        return set()
    return {name for name in names if not name.startswith(".")}


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


class StoredResults(StudyResults):
    """Results of a run whose finished studies lie in object storage.

    Args:
        output_dir: the storage's folder of this machine.
        storage: its address.
        options: of :class:`multiad_med.data.StudyResults`.
    """

    def __init__(self, output_dir: str | Path, *, storage: str, **options: Any) -> None:
        super().__init__(output_dir, **options)
        self.storage = ObjectStorage(storage, Path(output_dir))
        self.place = storage

    def begin(self, item: Mapping[str, Any]) -> bool:
        """Tell whether a study has to be done, as the storage says."""
        image = first_path(item)
        if self.owner(item) == image:  # what a killed worker left here does not count
            self.storage.fetch(self.path(image, SCORES))
        return super().begin(item)

    def discard(self, item: Mapping[str, Any]) -> None:
        """Remove a study's results, if the storage's are its own; where the storage refuses, say so."""
        image = first_path(item)
        try:
            if image in self.inputs and self.owner(item) == image:
                self.storage.fetch(self.path(image, SCORES))
            super().discard(item)
        except StudyError as error:  # the study has its own outcome
            _logger.warning("%s", error)

    def remove(self, path: Path) -> None:
        """Remove a file of a study here and in the storage."""
        super().remove(path)
        self.storage.remove(path)

    def settled(self, outcome: StudyOutcome) -> StudyOutcome:
        """Send a study's files, the scores last, or have the scores of a finished one.

        Returns:
            What became of the study, which failed if its files cannot be sent.
        """
        try:
            if outcome.status is StudyStatus.DONE:
                self.storage.send(*reversed(self.own_paths(outcome.image)))
            elif outcome.status is StudyStatus.SKIPPED:
                self.storage.fetch(self.path(outcome.image, SCORES))
        except StudyError as error:
            return replace(outcome, status=StudyStatus.FAILED, message=str(error), kind=error.kind)
        return outcome

    def clear(self, image: str) -> None:
        """Remove a study's files from this machine."""
        for path in self.own_paths(image):
            path.unlink(missing_ok=True)
