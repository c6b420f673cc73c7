"""A quick start for commands that predict: MONAI is imported without what no prediction uses."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

__all__ = ["NOT_FOR_PREDICTION", "import_monai_quickly"]

NOT_FOR_PREDICTION = (
    *("IPython", "matplotlib", "mlflow", "pandas", "sklearn", "torch.utils.tensorboard"),
    "scipy.signal",
)
"""What MONAI imports where it is installed, for notebooks, logs, tables, drawings and ultrasound."""

_OPTIMIZERS = "torch.distributed.optim"


def import_monai_quickly() -> None:
    """Import MONAI as if :data:`NOT_FOR_PREDICTION` were not installed; afterwards they are as before.

    MONAI's own functions that need these packages say, for as long as this process lasts, that they
    are missing, and Ignite's checkpoints do not know optimisers that are sharded over processes. So this
    is for a process that only prepares and predicts, such as ``multiad predict`` or a worker of Ray.
    Without effect where MONAI is imported already.
    """
    if "monai" in sys.modules:
        return
    optimizers = ModuleType(_OPTIMIZERS)
    # Ignite asks what is an instance of it; importing the true one takes half a second.
    optimizers.ZeroRedundancyOptimizer = type("ZeroRedundancyOptimizer", (), {})  # type: ignore[attr-defined]
    standins = {**dict.fromkeys(NOT_FOR_PREDICTION), _OPTIMIZERS: optimizers}
    with _standing_in(standins), _no_garbage_collection():
        import_module("monai")


@contextmanager
def _standing_in(standins: dict[str, ModuleType | None]) -> Iterator[None]:
    """Let imports find these instead of modules that are not imported yet; none: that it is missing."""
    new = {name: module for name, module in standins.items() if name not in sys.modules}
    sys.modules.update(new)  # type: ignore[arg-type] # None: Python's mark of what is not there
    try:
        yield
    finally:
        for name in new:
            del sys.modules[name]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect no garbage: imports make hardly any, and looking for it takes a quarter of their time.

    What was imported stays, so that it is not looked through later either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
