"""Background tasks of MONAI Label are processes of their own; they end with their server."""

from __future__ import annotations

import os

from multiad_med.utils import end_with_parent

__all__ = ["end_with_server", "mark_server"]

_SERVER = "MULTIAD_LABEL_SERVER"


def mark_server() -> None:
    """Let the processes that this one starts know it as their server."""
    os.environ[_SERVER] = str(os.getpid())


def end_with_server() -> None:
    """Let a background task end with the server that started it; do nothing in the server itself."""
    server = int(os.environ.get(_SERVER, os.getpid()))
    if server != os.getpid():
        end_with_parent(server)
