"""One base class of errors that a user can act on; everything else is a fault of the program."""

__all__ = ["InputError", "MissingPackageError", "MultiADError"]


class MultiADError(Exception):
    """Something that a user can mend, said in one sentence or two.

    Commands print it without a trace and end with status 1. Whatever else is raised, a bug or a lack of
    memory, keeps its trace.
    """


class InputError(MultiADError, ValueError):
    """An argument, a setting or a file is not as it must be."""


class MissingPackageError(MultiADError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""
