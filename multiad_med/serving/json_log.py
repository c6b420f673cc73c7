"""The service's log: one JSON object per line, in which no patient is named."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from multiad_med.utils.errors import causes

__all__ = ["JsonLineFormatter", "log_event", "log_to", "study_hash", "trace"]

_logger = logging.getLogger("multiad_med.serving")
_FIELDS = "fields"


def study_hash(key: str) -> str:
    """Return a study's name in the log: 16 hexadecimal digits of the SHA-256 of its ledger key."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def trace(error: BaseException) -> list[str]:
    """Return the code lines that an error and its causes came through, outermost first.

    Their messages, which may hold names, are left out.
    """
    return [
        f"{type(one).__name__}: {Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for one in causes(error)
        for frame in traceback.extract_tb(one.__traceback__)
    ]


def log_event(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event of the service.

    Args:
        event: what happened, one word.
        level: of Python's ``logging``.
        fields: numbers, states, hashes, and sentences of :mod:`multiad_med.serving.failures`. Never
            names, identifiers, paths or messages of errors.
    """
    _logger.log(level, event, extra={_FIELDS: fields})


class JsonLineFormatter(logging.Formatter):
    """Format each record as one JSON object.

    Of a record that :func:`log_event` did not make, only the logger's name, the level and the code lines
    that an error came through are written: messages of readers and HTTP clients hold paths, identifiers
    and values.

    Args:
        fields: added to every line, such as the worker's name.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__()
        self.fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        own = record.name == _logger.name
        error = record.exc_info[1] if record.exc_info else None
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if own else "other",
            **self.fields,
            **(getattr(record, _FIELDS, {}) if own else {"logger": record.name}),
            **({} if error is None else {"trace": trace(error)}),
        }
        return json.dumps(line, default=str)


def log_to(stream: TextIO = sys.stderr, **fields: Any) -> None:
    """Make the service's log the only one of this process; Python's warnings go to it too.

    Args:
        stream: where the lines go.
        fields: added to every line.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLineFormatter(fields))
    logging.captureWarnings(True)
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.root.handlers = [handler]
    logging.root.setLevel(logging.WARNING)
    _logger.setLevel(logging.INFO)
