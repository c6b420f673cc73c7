"""A class of a user's own, by its dotted name."""

from __future__ import annotations

import importlib
from typing import TypeVar

from multiad_med.utils.errors import InputError

__all__ = ["locate_class"]

Base = TypeVar("Base")


def locate_class(name: str, base: type[Base], *, what: str) -> type[Base]:
    """Return the class of a dotted name, such as ``my_package.MyStudent``.

    Only a subclass of ``base`` is returned, since a model's card holds such names: loading a model must
    not call whatever function its card names.

    Args:
        name: module and class.
        base: what the class must be derived from.
        what: what it is, for the message, such as ``teacher``.

    Raises:
        InputError: when the class cannot be imported, or is derived from something else.
    """
    module, _, attribute = name.rpartition(".")
    if not module:
        raise InputError(
            f"{what} {name!r}: give the dotted name of a class, such as my_package.MyClass."
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{what} {name}: it cannot be imported ({error}). Install its package in this environment, "
            "or add the folder that holds it to PYTHONPATH."
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"{what} {name}: expected a class derived from {base.__module__}.{base.__name__}, got "
            f"{found!r}."
        )
    return found
