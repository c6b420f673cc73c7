"""What goes wrong around a study, as opposed to with it."""

from __future__ import annotations

from multiad_med.data.study_errors import StudyError
from multiad_med.utils.errors import MultiADError

__all__ = ["DeadlyStudyError", "ServingError", "SourceUnavailableError", "TryAgainError"]


class ServingError(MultiADError, RuntimeError):
    """The service cannot start or go on; the message says why and what to do."""


class SourceUnavailableError(MultiADError, RuntimeError):
    """The PACS or the disk does not answer. This is no study's fault and counts as no try.

    The message goes into the log: it names no patient, identifier or path.
    """


class DeadlyStudyError(StudyError):
    """Workers died at a study; the message goes into the log too."""


class TryAgainError(StudyError):
    """A study could not be fetched or stored this time; it counts as a try, and the next may succeed."""
