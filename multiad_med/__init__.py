"""Multi-AD Med: unsupervised anomaly detection for medical volumes and industrial pictures."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("multiad-med")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
