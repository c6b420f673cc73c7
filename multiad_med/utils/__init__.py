"""What every other part builds on, and which imports none of them: errors, processes."""

from multiad_med.utils.errors import FileError, InputError, MultiADError
from multiad_med.utils.processes import (
    end_with_parent,
    processors,
    run_in_process,
    terminable,
    worker_errors,
)

__all__ = [
    "FileError",
    "InputError",
    "MultiADError",
    "end_with_parent",
    "processors",
    "run_in_process",
    "terminable",
    "worker_errors",
]
