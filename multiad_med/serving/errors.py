"""What goes wrong around a study, as opposed to with it."""

from __future__ import annotations

from multiad_med.utils.errors import MultiADError

__all__ = ["ServingError", "SourceUnavailableError"]


class ServingError(MultiADError, RuntimeError):
    """The service cannot start or go on; the message says why and what to do."""


class SourceUnavailableError(MultiADError, RuntimeError):
    """The PACS or the disk does not answer: no study's fault, so that none is counted a try for it.

    The message goes into the log: it names no patient, identifier or path.
    """
