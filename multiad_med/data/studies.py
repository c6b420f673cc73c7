"""Whole studies for inference, of which a bad one never stops the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from torch.utils.data import IterableDataset

from multiad_med.data.datalist import DatalistError, first_path
from multiad_med.data.errors import StudyError, study_errors

__all__ = ["StudyDataset", "StudyOutcome", "StudyStatus"]

_logger = logging.getLogger(__name__)


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
    """

    image: str
    status: StudyStatus
    seconds: float
    message: str = ""


class Results(Protocol):
    """What is asked about results, see :class:`multiad_med.io.StudyResults`."""

    def begin(self, item: Mapping[str, Any]) -> bool: ...

    def discard(self, item: Mapping[str, Any]) -> None: ...


class StudyDataset(IterableDataset):
    """Studies one by one; those that fail are logged, counted and passed over.

    Read it in the main process (``num_workers=0``), where :attr:`outcomes` is filled, and which says
    with :meth:`fail` when a study that was read failed afterwards. It has no length, because ignite
    would start anew on studies that fall short of one.

    Args:
        data: items of a datalist.
        transform: applied to each item.
        results: studies that it knows as finished are skipped; none skips none.

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
            raise DatalistError("There is no study to run: this section of the datalist is empty.")
        self.data = data
        self.transform = transform
        self.results = results
        self.outcomes: list[StudyOutcome] = []
        self.item: Mapping[str, Any] = {}
        self._message = ""

    @property
    def failures(self) -> list[str]:
        """Messages of the studies that failed, in order."""
        return [o.message for o in self.outcomes if o.status is StudyStatus.FAILED]

    def fail(self, error: StudyError) -> None:
        """Say that the study at hand, :attr:`item`, failed; what was written of it is removed."""
        _logger.error("failed: %s", error)
        self._message = str(error)
        if self.results is not None:
            self.results.discard(self.item)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Transformed items of the studies that are not finished."""
        self.outcomes = []
        for item in self.data:
            self.item, self._message = item, ""
            start, status = time.perf_counter(), StudyStatus.DONE
            try:
                with study_errors(item):
                    if self.results is None or self.results.begin(item):
                        study = self.transform(item)
                    else:
                        status = StudyStatus.SKIPPED
            except StudyError as error:
                self.fail(error)
            else:
                if status is StudyStatus.DONE:
                    yield study
                    del study
            if self._message:
                status = StudyStatus.FAILED
            seconds = time.perf_counter() - start
            self.outcomes.append(StudyOutcome(first_path(item), status, seconds, self._message))
