"""One error for whatever keeps a study from being read or prepared."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from multiad_med.data.datalist import first_path
from multiad_med.utils.errors import (
    MultiADError,
    causes,
    is_about_files,
    memory_error,
    user_error,
)

__all__ = ["StudyError", "failure_reason", "study_errors"]

_logger = logging.getLogger(__name__)

_FULL = os.strerror(errno.ENOSPC)


class StudyError(MultiADError, RuntimeError):
    """A study could not be read or prepared; the message names the file and the reason."""


def failure_reason(error: BaseException) -> tuple[str, bool]:
    """Why something failed, in a sentence or two, and whether that is a fault of the program.

    MONAI wraps an error once for every level of ``Compose``; the reason is what it wrapped.
    """
    if (memory := memory_error(error)) is not None:
        told = str(memory).partition("\n")[0]
        return (
            f"out of memory ({type(memory).__name__}{told and f': {told}'}). Set a smaller "
            "sw_batch_size or another device; in a preparation fewer workers, or give more memory.",
            False,
        )
    *_, innermost = causes(error)
    if (known := user_error(error)) is not None:
        reason, fault = str(known), False
    elif is_about_files(innermost):
        reason, fault = str(innermost), False
    else:
        reason, fault = f"{type(innermost).__name__}: {innermost}", True
    if _FULL in reason:
        reason = reason.rstrip(".") + (
            ". Free some space and run again: finished studies are not done anew."
        )
    return reason, fault


@contextmanager
def study_errors(item: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever goes wrong inside into a :class:`StudyError` that names the item's image.

    So one study never stops others. A fault of the program fails the study too, and its trace is logged.
    """
    try:
        yield
    except Exception as error:  # the barrier between studies
        image = first_path(item) if item.get("image") else "?"
        reason, fault = failure_reason(error)
        if fault:
            _logger.exception("%s failed by a fault of the program", image)
        raise StudyError(reason if image in reason else f"{image}: {reason}") from error
