"""What every other part builds on and that knows none of them: errors."""

from multiad_med.utils.errors import FileError, InputError, MultiADError

__all__ = ["FileError", "InputError", "MultiADError"]
