"""One error for whatever keeps a study from being read or prepared."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from multiad_med.data.datalist import first_path
from multiad_med.utils.errors import MultiADError

__all__ = ["StudyError", "study_errors"]


class StudyError(MultiADError, RuntimeError):
    """A study could not be read or prepared; the message names the file and the reason."""


@contextmanager
def study_errors(item: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever goes wrong inside into a :class:`StudyError` that names the item's image.

    MONAI wraps an error once for every level of ``Compose``; the message gives what it wrapped.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None and str(cause).startswith("applying transform "):
            cause = cause.__cause__
        reason = str(cause) or type(cause).__name__
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            reason += ". Free some space and run again: finished studies are not done anew."
        image = first_path(item) if item.get("image") else "?"
        raise StudyError(reason if image in reason else f"{image}: {reason}") from error
