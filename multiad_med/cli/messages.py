"""What a run prints on stderr besides its result: warnings, and the package's own lines."""

from __future__ import annotations

import logging
import warnings

__all__ = ["show_log"]


def show_log() -> None:
    """Show the package's log and Python's warnings in plain words, without other packages' logs."""
    import monai.bundle  # noqa: F401 - it makes loggers of its own when it is imported

    logging.basicConfig(format="%(message)s")
    logging.getLogger("multiad_med").setLevel(logging.INFO)
    logging.getLogger("ignite.engine").setLevel(logging.CRITICAL)  # its errors are raised as well
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
