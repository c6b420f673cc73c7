"""One base class of errors that a user can act on; everything else is a fault of the program."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "FileError",
    "InputError",
    "MissingPackageError",
    "MultiADError",
    "causes",
    "failure_list",
    "file_errors",
    "last_line",
    "memory_error",
    "missing_package",
    "reader_errors",
    "unwrapped",
    "user_error",
]

EXTRAS = {
    "anomalib": "benchmark",
    "dicomweb_client": "pacs",
    "eyepy": "oct",
    "gdcm": "gdcm",
    "highdicom": "dicom",
    "mlflow": "tracking",
    "monailabel": "label",
    "nncf": "int8",
    "nvflare": "federated",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "export",
    "pyarrow": "scale",
    "ray": "scale",
    "timm": "timm",
    "torchvision": "timm",
}
"""The extra of multiad-med that installs an optional package, by the name that is imported."""

_TOLD = 100  # failures in one message
_NOT_OF_FILES = (None, errno.EINVAL, errno.ENOMEM)
_TORCH_ON_CPU = ("can't allocate memory", "not enough memory")


class MultiADError(Exception):
    """An error that a user can mend, told in a sentence or two.

    Commands print it without a trace and end with status 2. Anything else that is raised, such as a bug
    or a lack of memory, keeps its trace.
    """


class InputError(MultiADError, ValueError):
    """An argument, a setting or a file is not as it must be."""


class FileError(MultiADError, OSError):
    """The system refuses a file or folder; the message has its path and the reason."""


class MissingPackageError(MultiADError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, one after the other."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def missing_package(name: str) -> MissingPackageError:
    """Return the error that an optional package is not installed, with the command that installs it.

    Args:
        name: of the package as imported; a key of :data:`EXTRAS`.
    """
    return MissingPackageError(
        f"The package {name} is not installed: run `pip install 'multiad-med[{EXTRAS[name]}]'`."
    )


def _missing_package(error: BaseException) -> MissingPackageError | None:
    """Return the error for a failed import of an optional package, also by ``optional_import``."""
    if not isinstance(error, ImportError):
        return None
    # MONAI's error has the name in its text only.
    found = re.search(r"No module named '(\w+)'", str(error))
    name = (error.name or (found[1] if found else "")).partition(".")[0]
    return missing_package(name) if name in EXTRAS and is_missing(name) else None


def is_missing(name: str) -> bool:
    """Return whether a package cannot be imported because it is not there."""
    try:
        return importlib.util.find_spec(name) is None
    except ValueError:  # an import that was halted
        return True


def user_error(error: BaseException) -> MultiADError | None:
    """Return the first error in a chain of causes that a user can mend, or none.

    MONAI wraps errors of configs and transforms in its own. Ours, where they wrap another, say more
    than it. An optional package that another library does not find is such an error too.
    """
    for cause in causes(error):
        known = cause if isinstance(cause, MultiADError) else _missing_package(cause)
        if known is not None:
            return known
    return None


def last_line(error: MultiADError) -> str:
    """Return what a command ends with: the reason in the last line, a list of details above it."""
    reason, *details = str(error).splitlines() or [type(error).__name__]
    if len(details) < 2:
        return " ".join([f"Error: {reason}", *(line.strip() for line in details)])
    return "\n".join([*details, f"Error: {reason.rstrip(':')}, as listed above."])


def failure_list(failures: Sequence[str], *, of: int) -> str:
    """Return the message that some studies failed: the first of many."""
    told = [*failures[:_TOLD], *([f"and {len(failures) - _TOLD} more"] * (len(failures) > _TOLD))]
    return f"{len(failures)} of {of} studies failed:\n  " + "\n  ".join(told)


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise an error inside that a user can mend as it is, without what MONAI wraps around it."""
    known: MultiADError | None = None
    try:
        yield
    except Exception as error:  # of which all but ours are raised again
        if (known := user_error(error)) is None:
            raise
        known.__suppress_context__ = True
    if known is not None:
        raise known


def memory_error(error: BaseException) -> BaseException | None:
    """Return the error in a chain of causes that says that memory ran out, on CPU or GPU, or none."""
    import torch

    for cause in causes(error):
        if isinstance(cause, (MemoryError, torch.OutOfMemoryError)):
            return cause
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return cause
        # On a CPU torch has no type of its own for it.
        if isinstance(cause, RuntimeError) and any(text in str(cause) for text in _TORCH_ON_CPU):
            return cause
    return None


def is_about_files(error: BaseException) -> bool:
    """Return whether an error is the system's about a file: missing, forbidden, disk full, and so on."""
    network = isinstance(error, (ConnectionError, TimeoutError))
    return isinstance(error, OSError) and error.errno not in _NOT_OF_FILES and not network


@contextmanager
def file_errors(path: str | os.PathLike[str], done: str = "read") -> Iterator[None]:
    """Turn the system's errors inside the context into a :class:`FileError`.

    Args:
        path: of the file or folder that is used.
        done: what cannot be done with it, as in "cannot be read".
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, MultiADError) or not is_about_files(error):
            raise
        raise FileError(f"{path} cannot be {done}: {error.strerror}.") from error


@contextmanager
def reader_errors(
    path: str | os.PathLike[str], kind: type[MultiADError], what: str
) -> Iterator[None]:
    """Turn a library reader's errors inside the context into one with the file's name.

    Readers raise nearly every type of error on damaged files. A lack of memory is no damage, and passes.

    Args:
        path: of the file that is read.
        kind: class of the error.
        what: what is wrong with the file, such as ``not a readable NIfTI file``.
    """
    try:
        with file_errors(path):
            yield
    except MultiADError:
        raise
    except Exception as error:  # see above
        if memory_error(error) is not None:
            raise
        raise kind(f"{path}: {what}: {str(error) or type(error).__name__}") from error
