"""Multi-AD Med: unsupervised anomaly detection for medical volumes and industrial images."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from multiad_med import _moved

if TYPE_CHECKING:
    from multiad_med.detector import AnomalyDetector
    from multiad_med.result import Result

_moved.install()

__all__ = ["AnomalyDetector", "Result", "__version__"]

try:
    __version__ = version("multiad-med")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

_PLACES = {"AnomalyDetector": "multiad_med.detector", "Result": "multiad_med.result"}


def __getattr__(name: str) -> Any:  # so that importing the package takes no time
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
