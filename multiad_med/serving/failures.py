"""What a failure means for a study, and what the log may say of it."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from multiad_med.data.study_errors import FailureKind, failure_reason
from multiad_med.dicom.write.referenced_series import DicomResultError
from multiad_med.serving.service_errors import (
    DeadlyStudyError,
    SourceUnavailableError,
    TryAgainError,
)
from multiad_med.utils.errors import causes, memory_error

__all__ = ["Failure", "Next", "failure_of"]

_FULL = os.strerror(errno.ENOSPC)
_MORE = "`multiad serve status` tells more."


class Next(StrEnum):
    """What happens to a study that failed."""

    WAIT = "wait"
    """The study was not at fault; this does not count as a try."""
    TRY_AGAIN = "try again"
    GIVE_UP = "give up"
    """Another try would fail too."""


@dataclass(frozen=True)
class Failure:
    """A failure in words.

    Attributes:
        reason: for the ledger; it may name the study and its files.
        told: for log and health endpoint: a sentence that names no patient, identifier or path.
        then: what happens to the study.
        is_fault: whether it is a fault of the program, whose place in the code is worth telling.
    """

    reason: str
    told: str
    then: Next
    is_fault: bool = False


def failure_of(error: BaseException) -> Failure:
    """Return what went wrong, and whether another try makes sense.

    Messages of readers and headers hold names, so they go into the ledger only.
    """
    if isinstance(error, SourceUnavailableError):  # its message names nobody
        return Failure(str(error), str(error), Next.WAIT)
    if isinstance(error, DeadlyStudyError):
        return Failure(str(error), str(error), Next.GIVE_UP)
    if isinstance(error, sqlite3.Error):
        told = f"The ledger cannot be used: {error}."
        return Failure(told, told, Next.WAIT)
    reason, kind = failure_reason(error)
    reason = _in_words(reason)
    if _FULL in reason:
        return Failure(reason, "The disk is full. Free some space.", Next.WAIT)
    if kind is FailureKind.PROGRAM:
        told = f"A fault of the program; please report the lines of the log. {_MORE}"
        return Failure(reason, told, Next.TRY_AGAIN, is_fault=True)
    if kind is FailureKind.SYSTEM:
        return Failure(reason, _told_of_system(error, reason), Next.TRY_AGAIN)
    if isinstance(error, TryAgainError):
        told = f"The server did not send or keep all of it as it should. {_MORE}"
        return Failure(reason, told, Next.TRY_AGAIN)
    if isinstance(error, DicomResultError):
        told = f"No DICOM results can be made of it; its map is there. {_MORE}"
    else:
        told = f"It cannot be read, or is not what the model takes. {_MORE}"
    return Failure(reason, told, Next.GIVE_UP)


def _in_words(reason: str) -> str:
    """Return a reason on one line, without the names of Python's classes."""
    reason = re.sub(r" \(\w*Error\)|(?<=\()\w*Error: ", "", " ".join(reason.split()))
    return re.sub(r"(?:^|(?<= ))\w+(?:Error|Exception): ", "a fault of the program: ", reason)


def _told_of_system(error: BaseException, reason: str) -> str:
    if memory_error(error) is not None or "out of memory" in reason:
        return "Memory ran out. Set a smaller sw_batch_size or another device."
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno:
            return f"The system refuses a file: {os.strerror(cause.errno)}. {_MORE}"
    return f"Disk or network could not be used. {_MORE}"
