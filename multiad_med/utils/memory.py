"""Memory that a process keeps for its next arrays."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of malloc.h


@cache
def keep_freed_memory() -> None:
    """Let this process reuse the memory of its last volume instead of returning it.

    glibc asks the kernel for every large array again, page by page, which takes a quarter to a half
    of the processor time where volumes follow one another. The process keeps the memory of its largest
    volume until it ends. Threads share one heap; where threads have asked for memory before this call,
    only ``MALLOC_ARENA_MAX=1`` in the environment does that. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_ARENA_MAX, 1)
