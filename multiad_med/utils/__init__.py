"""What every other part builds on and that knows none of them: errors."""

from multiad_med.utils.errors import InputError, MultiADError

__all__ = ["InputError", "MultiADError"]
