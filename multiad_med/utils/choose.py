"""What a user chooses by name: one of a few words, or a device."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

from multiad_med.utils.errors import InputError

__all__ = ["choose", "usable_device"]

Choice = TypeVar("Choice", bound=Enum)


def choose(kind: type[Choice], value: Any, *, what: str) -> Choice:
    """Return the member of an enum with a value.

    Args:
        kind: the enum.
        value: a member or its value.
        what: the name of what is chosen, for the message.

    Raises:
        InputError: with the values that there are.
    """
    try:
        return kind(value)
    except ValueError:
        allowed = [member.value for member in kind]
        raise InputError(f"{what} is one of {allowed}, got {value!r}.") from None


def usable_device(name: Any = "auto") -> Any:
    """Return a usable torch device by name; for ``auto`` a GPU, where there is one.

    Raises:
        InputError: when there is no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # torch has no type of its own
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The device {str(name)!r} cannot be used: {reason.rstrip('.')}. Choose another, such as cpu."
        ) from error
    return device
