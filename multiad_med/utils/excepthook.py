"""How ``python -m monai.bundle`` ends on an error that a user can mend: with the reason, and no trace."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from multiad_med.utils.errors import last_line, user_error

__all__ = ["is_monai_bundle", "tell_user_errors"]


def is_monai_bundle(program: str) -> bool:
    """Return whether a program, as the first of ``sys.argv``, is ``python -m monai.bundle``."""
    return Path(program).parts[-3:] == ("monai", "bundle", "__main__.py")


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None, /) -> None:
    known = user_error(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
        return
    sys.stdout.flush()
    for bar in list(
        getattr(tqdm, "_instances", ())
    ):  # one that is open would be drawn over the line
        bar.close()
    print(last_line(known), file=sys.stderr)


def tell_user_errors() -> None:
    """End this process, if it is ``python -m monai.bundle``, with ``Error: <reason>`` in the last line.

    MONAI wraps an error of a config's component in several of its own, and Python prints them all.
    A fault of the program keeps its trace.
    """
    if is_monai_bundle(sys.argv[0]):
        sys.excepthook = _tell
