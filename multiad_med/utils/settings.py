"""``NAME=VALUE`` of a command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from multiad_med.utils.errors import InputError

__all__ = ["parse_pairs", "parse_settings"]


def parse_pairs(pairs: Iterable[str], *, option: str) -> dict[str, str]:
    """Return the names and values of ``NAME=VALUE`` pairs.

    Raises:
        InputError: when one has no name or no equals sign; the message names the option.
    """
    parsed = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name.strip() or not equals:
            raise InputError(f"{option} takes NAME=VALUE, got {pair!r}.")
        parsed[name.strip()] = value.strip()
    return parsed


def parse_settings(pairs: Iterable[str], *, option: str = "--set") -> dict[str, Any]:
    """Return the same as :func:`parse_pairs`, with values read as YAML: numbers, lists, true, null, text.

    Raises:
        InputError: when a value is not YAML, or would lose its end as a comment.
    """
    settings = {}
    for name, value in parse_pairs(pairs, option=option).items():
        try:
            # A glob such as **/*.nii would be a reference in YAML.
            settings[name] = value if value.startswith("*") else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"{option} {name}: {value!r} is not YAML: {error}") from error
        if re.search(r"\s#", value) and "#" not in str(settings[name]):
            raise InputError(
                f"{option} {name}: in YAML ' #' begins a comment, got {value!r}. Put the value into "
                f"quotes of its own: {name}='\"{value}\"'."
            )
    return settings
