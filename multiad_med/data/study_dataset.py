"""Whole studies for inference; a bad one never stops the others."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from torch.utils.data import Dataset, get_worker_info

from multiad_med.data.datalist import DatalistError, first_path
from multiad_med.data.study_errors import FailureKind, StudyError, study_errors
from multiad_med.utils.processes import end_with_parent

__all__ = ["READING", "StudyDataset", "StudyOutcome", "StudyStatus"]

_logger = logging.getLogger(__name__)

READING = "reading"
"""Key of what happened while a study was read, as JSON, which passes workers and collation."""


class StudyStatus(StrEnum):
    """What became of a study."""

    DONE = "done"
    SKIPPED = "skipped"
    """Finished by an earlier run."""
    FAILED = "failed"


@dataclass(frozen=True)
class StudyOutcome:
    """What became of one study.

    Attributes:
        image: its path, of several files the first.
        status: see :class:`StudyStatus`.
        seconds: from reading to the last file written.
        message: why it failed, else empty.
        kind: what is to blame for a failure.
    """

    image: str
    status: StudyStatus
    seconds: float
    message: str = ""
    kind: FailureKind = FailureKind.STUDY


class Results(Protocol):
    """What a data set asks of results, see :class:`multiad_med.data.StudyResults`."""

    inputs: dict[str, dict[str, str]]

    def expect(self, items: Sequence[Mapping[str, Any]]) -> None: ...

    def begin(self, item: Mapping[str, Any]) -> bool: ...

    def discard(self, item: Mapping[str, Any]) -> None: ...


class StudyDataset(Dataset):
    """Whole studies; one that cannot be read, or is finished, is reported instead of raised.

    A ``DataLoader`` with a batch size of 1 may read them in this process or in workers. What happened
    while a study was read comes with it; :meth:`start` and :meth:`at_work` keep the outcomes in the
    process that owns this object. :class:`multiad_med.inference.StudyEvaluator` calls both.

    Args:
        data: items of a datalist.
        transform: applied to each item.
        results: knows the finished studies, which are skipped; without it none is.

    Raises:
        DatalistError: without any item.

    Attributes:
        outcomes: one per study that is over, in order.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        results: Results | None = None,
    ) -> None:
        if not data:
            raise DatalistError("There is no study to run: this split of the datalist is empty.")
        self.data = data
        self.transform = transform
        self.results = results
        self.outcomes: list[StudyOutcome] = []
        self._watched = False

    @property
    def failures(self) -> list[str]:
        """Messages of the studies that failed, in order."""
        return [o.message for o in self.outcomes if o.status is StudyStatus.FAILED]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the transformed item, if it is needed and readable, and what :meth:`at_work` needs."""
        if get_worker_info() is not None and not self._watched:
            end_with_parent()
            self._watched = True
        item = self.data[index]
        start = time.perf_counter()
        study: Mapping[str, Any] = {}
        status, message, kind = StudyStatus.DONE, "", FailureKind.STUDY
        try:
            with study_errors(item):
                if self.results is None or self.results.begin(item):
                    study = self.transform(item)
                else:
                    status = StudyStatus.SKIPPED
        except StudyError as error:
            status, message, kind = StudyStatus.FAILED, str(error), error.kind
        except BaseException:  # Ctrl-C while what an earlier run left is removed
            self._discard(item)
            raise
        reading = {
            "index": index,
            "status": status,
            "message": message,
            "kind": kind,
            "seconds": time.perf_counter() - start,
            "inputs": self.results.inputs.get(first_path(item)) if self.results else None,
        }
        return {**study, READING: json.dumps(reading)}

    def start(self) -> None:
        """Forget earlier outcomes, before the first study is read."""
        self.outcomes = []
        if self.results is not None:
            self.results.expect(self.data)

    @contextmanager
    def at_work(self, batch: dict[str, Any]) -> Iterator[bool]:
        """Record the outcome of one study while it is worked on; yield whether there is work to do.

        A study that fails inside is logged and counted; no error is raised. After Ctrl-C, as after a
        failure, nothing that was written for it stays.

        Args:
            batch: of a ``DataLoader``; what was noted while reading is taken out of it.
        """
        (text,) = batch.pop(READING)
        reading = json.loads(text)
        item = self.data[reading["index"]]
        if self.results is not None and reading["inputs"]:  # of a worker
            self.results.inputs[first_path(item)] = reading["inputs"]
        status, message = StudyStatus(reading["status"]), reading["message"]
        kind = FailureKind(reading["kind"])
        start = time.perf_counter() - reading["seconds"]
        try:
            with study_errors(item):
                yield status is StudyStatus.DONE
                if status is StudyStatus.FAILED:
                    raise StudyError(message, kind=kind)
        except StudyError as error:
            _logger.error("failed: %s", error)
            status, message, kind = StudyStatus.FAILED, str(error), error.kind
            self._discard(item)
        except BaseException:  # Ctrl-C too: no half-written study stays
            self._discard(item)
            raise
        seconds = time.perf_counter() - start
        self.outcomes.append(StudyOutcome(first_path(item), status, seconds, message, kind))

    def _discard(self, item: Mapping[str, Any]) -> None:
        if self.results is not None:
            self.results.discard(item)
