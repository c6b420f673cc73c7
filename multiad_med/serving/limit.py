"""A time limit for work that may hang."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["OverTimeError", "time_limit"]

_GRACE = 30.0


class OverTimeError(BaseException):
    """Work took longer than it may. No ``Exception``, so that ``except Exception`` does not catch it."""


@contextmanager
def time_limit(
    seconds: float, *, hung: Callable[[], None], grace: float = _GRACE
) -> Iterator[None]:
    """Raise :class:`OverTimeError` inside the context when its time is up.

    Python raises it between two of its own steps. Work that does not come back to Python, as a decoder
    in an endless loop, or a system without timer signals (Windows), cannot be stopped in this way.

    Args:
        seconds: that the work may take.
        hung: called from a thread when the work is still not over after ``grace``.
        grace: seconds.
    """
    here = threading.current_thread() is threading.main_thread()
    alarm = here and hasattr(signal, "setitimer")
    last = threading.Timer(seconds + grace, hung)
    last.daemon = True
    earlier: Any = None
    if alarm:
        earlier = signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    last.start()
    try:
        yield
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, earlier)
        last.cancel()


def _raise(number: int, frame: Any) -> None:
    raise OverTimeError
