"""Values for MONAI's configs, in which some characters of a text are syntax."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from multiad_med.utils.errors import InputError

__all__ = ["SYNTAX", "check_length", "is_path_id", "literal", "unknown_id"]

SYNTAX = ("$", "@", "%")
"""What begins an expression, a reference or a macro; ``#`` anywhere separates parts of an id."""


def is_path_id(name: str) -> bool:
    """Return whether an id of a bundle's config, such as ``dataset_dir``, is a path's."""
    return name.endswith(("_dir", "_path", "_root", "_logs", "_weights", "_model"))


def check_length(names: Collection[str]) -> None:
    """Refuse two settings of one training's length.

    Args:
        names: ids of a bundle's config that a user gives.

    Raises:
        InputError: when ``steps`` and ``max_epochs`` are among them.
    """
    if {"steps", "max_epochs"} <= set(names):
        raise InputError(
            "steps and max_epochs are both given, and each alone says how long the training is. "
            "Give one of them."
        )


def literal(value: Any, *, expressions: bool = False) -> Any:
    """Return a value that MONAI's config parser leaves as it is, whatever characters it has.

    A text that the parser would change becomes an expression without such characters.

    Args:
        value: a text, or a list or dictionary with texts.
        expressions: whether a text that begins as MONAI's syntax stays that.
    """
    if isinstance(value, list):
        return [literal(item, expressions=expressions) for item in value]
    if isinstance(value, dict):
        return {key: literal(item, expressions=expressions) for key, item in value.items()}
    if not isinstance(value, str) or (expressions and value.startswith(SYNTAX)):
        return value
    if value.startswith(SYNTAX) or "#" in value:
        return "$" + repr(value).replace("#", "\\x23").replace("@", "\\x40")
    return value


def unknown_id(
    key: str, config: Any, tracked: Collection[str] = ()
) -> tuple[str, list[str]] | None:
    """Return an id up to its first part that is not in a config, and what could stand there.

    An argument that a component's config leaves out is not unknown: its class may have it.

    Args:
        key: an id, such as ``loss#hardest``.
        config: content of the config.
        tracked: further ids of its top level.
    """
    from monai.bundle import ReferenceResolver

    parents = ""
    for name in ReferenceResolver.split_id(key):
        names = [str(i) for i in range(len(config))] if isinstance(config, list) else list(config)
        if name in names:
            config = config[int(name) if isinstance(config, list) else name]
            config = config if isinstance(config, (dict, list)) else {}
        elif "_target_" in config or (not parents and name in tracked):
            return None
        else:
            return parents + name, [parents + other for other in names]
        parents += f"{name}#"
    return None
