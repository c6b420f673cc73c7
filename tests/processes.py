"""Who descends from a process and who is still there, as Linux tells it."""

from __future__ import annotations

import time
from pathlib import Path


def _state_and_parent(pid: int) -> tuple[str, int]:
    """State and parent; ``("", 0)`` where there is no such process any more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def descendants(pid: int) -> set[int]:
    """Processes that a process started, and theirs."""
    parents = {int(p.name): 0 for p in Path("/proc").iterdir() if p.name.isdecimal()}
    parents = {one: _state_and_parent(one)[1] for one in parents}
    found, new = set(), {pid}
    while new:
        new = {one for one, parent in parents.items() if parent in new} - found
        found |= new
    return found


def survivors(pids: set[int], *, seconds: float) -> set[int]:
    """Those that are still there after so long, zombies left out."""
    end = time.monotonic() + seconds
    while left := {pid for pid in pids if _state_and_parent(pid)[0] not in ("", "Z", "X")}:
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return left
