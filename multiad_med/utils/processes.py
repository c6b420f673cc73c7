"""Processes that end together and clean up: no child outlives the one that started it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

__all__ = ["end_with_parent", "processors", "run_in_process", "terminable", "worker_errors"]

_PATIENCE = 10.0  # seconds that a child has for its clean-up


def processors() -> int:
    """Count the processors that this process may use, perhaps fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_with_parent(pid: int | None = None) -> None:
    """End this process as soon as its parent has ended: by SIGKILL, a crash, or lack of memory.

    A thread waits for it. Children of :mod:`multiprocessing`, such as workers of a ``DataLoader``, see
    it on every system, by a pipe that the parent holds (on Windows, by its handle). They end at once on
    SIGTERM, whatever the parent does on it. Other processes check once a second whose child they are,
    which Windows does not tell.

    Args:
        pid: of the parent, where it did not start this process by :mod:`multiprocessing`.
    """
    parent = multiprocessing.parent_process()
    if pid is not None:
        watch: Any = partial(_wait_for_other_parent, pid)
    elif parent is not None:
        watch = partial(multiprocessing.connection.wait, [parent.sentinel])
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    else:
        return
    threading.Thread(target=_end_after, args=(watch,), daemon=True).start()


def _wait_for_other_parent(pid: int) -> None:
    while os.getppid() == pid:
        time.sleep(1)


def _end_after(watch: Callable[[], Any]) -> None:
    watch()
    os._exit(1)


def run_in_process(target: Callable[..., None], *args: Any) -> int | None:
    """Call a function in a new process and wait for its end; it ends with this one in any case.

    Args:
        target: a picklable function.
        *args: its arguments, picklable too.

    Returns:
        Its exit status.
    """
    process = multiprocessing.get_context("spawn").Process(target=_called, args=(target, args))
    with terminable():
        try:
            process.start()
            process.join()
        finally:
            for end in (process.terminate, process.kill):
                if process.is_alive():
                    end()
                    process.join(_PATIENCE)
    return process.exitcode


def _called(target: Callable[..., None], args: tuple[Any, ...]) -> None:
    end_with_parent()
    with terminable():
        target(*args)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise ``SystemExit`` inside the context, so that it cleans up as after Ctrl-C.

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
    """Raise a clear error when a ``DataLoader``'s worker is killed; torch's is a bare ``RuntimeError``.

    Args:
        kind: of the error to raise.
        advice: last sentence of its message.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # an error inside a worker is told as it is
            raise
        raise kind(
            f"A worker was ended from outside, as happens when memory runs out: {error} {advice}"
        ) from error
