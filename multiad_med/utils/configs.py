"""Values for MONAI's configs, in which some characters of a text are syntax."""

from __future__ import annotations

from typing import Any

__all__ = ["SYNTAX", "is_path_id", "literal"]

SYNTAX = ("$", "@", "%")
"""What begins an expression, a reference or a macro; ``#`` anywhere separates parts of an id."""


def is_path_id(name: str) -> bool:
    """Whether an id of a bundle's config, such as ``dataset_dir``, is of a path."""
    return name.endswith(("_dir", "_path", "_root", "_logs", "_weights", "_model"))


def literal(value: Any, *, expressions: bool = False) -> Any:
    """A value that MONAI's config parser gives out as it is, whatever characters it has.

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
