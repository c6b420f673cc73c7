"""A quick start for commands that predict: MONAI is imported without what no prediction uses."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

__all__ = ["NOT_FOR_PREDICTION", "import_monai_quickly"]

NOT_FOR_PREDICTION = (
    *("IPython", "matplotlib", "mlflow", "pandas", "sklearn", "torch.utils.tensorboard"),
)
"""What MONAI imports where it is installed, for notebooks, logs, tables and drawings."""


def import_monai_quickly() -> None:
    """Import MONAI as if :data:`NOT_FOR_PREDICTION` were not installed; afterwards they are as before.

    MONAI's own functions that need these packages say, for as long as this process lasts, that they
    are missing. So this is for a process that does nothing but predict, such as ``multiad predict``.
    Without effect where MONAI is imported already.
    """
    if "monai" in sys.modules:
        return
    with _hidden(*NOT_FOR_PREDICTION), _no_garbage_collection():
        import_module("monai")


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Let an import of these modules fail, unless they are imported already."""
    hidden = dict.fromkeys(name for name in names if name not in sys.modules)
    sys.modules.update(hidden)  # type: ignore[arg-type] # None: Python's mark of what is not there
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect no garbage: imports make hardly any, and looking for it takes a quarter of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
