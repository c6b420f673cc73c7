"""Processes that end together and clean up: no child outlives the one that started it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["end_with_parent", "terminable", "worker_errors"]


def end_with_parent() -> None:
    """Let this child process end as soon as its parent has, however that ended.

    For children of :mod:`multiprocessing`, of which workers of a ``DataLoader`` are some. A thread waits
    for the parent, by a pipe that it alone can hold (on Windows, by its handle): also SIGKILL, a crash
    and a lack of memory are seen. SIGTERM ends the child at once again, whatever the parent does on it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise ``SystemExit`` inside, so that it is cleaned up after as after Ctrl-C.

    Nothing is changed where somebody else handles the signal, nor outside the main thread.
    """
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if mine:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


@contextmanager
def worker_errors(kind: type[Exception], advice: str) -> Iterator[None]:
    """Tell of a ``DataLoader``'s worker that was killed, which torch tells by a bare ``RuntimeError``.

    Args:
        kind: of the error to raise.
        advice: last sentence of its message.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise kind(
            f"A worker was ended from outside, as happens when memory runs out: {error} {advice}"
        ) from error
