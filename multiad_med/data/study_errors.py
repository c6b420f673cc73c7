"""One error for whatever keeps a study from being read or prepared."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from multiad_med.data.datalist import first_path
from multiad_med.utils.errors import MultiADError, causes, is_about_files, memory_error, user_error

__all__ = ["FailureKind", "StudyError", "failure_reason", "study_errors"]

_logger = logging.getLogger(__name__)

_FULL = os.strerror(errno.ENOSPC)


class FailureKind(StrEnum):
    """What is to blame for a failure."""

    STUDY = "study"
    """The study or a setting: another try would fail too."""
    SYSTEM = "system"
    """Disk, memory or network: another try may work."""
    PROGRAM = "program"
    """A fault of the program."""


class StudyError(MultiADError, RuntimeError):
    """A study could not be read or prepared; the message names the file and the reason.

    Attributes:
        kind: what is to blame.
    """

    def __init__(self, message: str, *, kind: FailureKind = FailureKind.STUDY) -> None:
        super().__init__(message)
        self.kind = kind


def failure_reason(error: BaseException) -> tuple[str, FailureKind]:
    """Return why something failed, in a sentence or two, and what is to blame.

    MONAI wraps an error once for every level of ``Compose``; the reason is what it wrapped.
    """
    if (memory := memory_error(error)) is not None:
        told = str(memory).partition("\n")[0]
        return (
            f"out of memory ({type(memory).__name__}{told and f': {told}'}). Set a smaller "
            "sw_batch_size or another device; in a preparation fewer workers, or give more memory.",
            FailureKind.SYSTEM,
        )
    *_, innermost = causes(error)
    system = is_about_files(innermost) or isinstance(innermost, ConnectionError | TimeoutError)
    kind = FailureKind.SYSTEM if system else FailureKind.STUDY
    if (known := user_error(error)) is not None:
        reason = str(known)
        if isinstance(known, StudyError) and known.kind is not FailureKind.STUDY:
            kind = known.kind
    elif system:
        reason = str(innermost)
    else:
        reason, kind = f"{type(innermost).__name__}: {innermost}", FailureKind.PROGRAM
    if _FULL in reason:
        reason = reason.rstrip(".") + (
            ". Free some space and run again: finished studies are not done again."
        )
    return reason, kind


@contextmanager
def study_errors(item: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever goes wrong inside into a :class:`StudyError` that names the item's image.

    One study thus never stops the others. A fault of the program is logged with its trace.
    """
    try:
        yield
    except Exception as error:  # the barrier between studies
        image = first_path(item) if item.get("image") else "?"
        reason, kind = failure_reason(error)
        if kind is FailureKind.PROGRAM and not isinstance(error, StudyError):
            _logger.exception("%s failed by a fault of the program", image)
        raise StudyError(reason if image in reason else f"{image}: {reason}", kind=kind) from error
