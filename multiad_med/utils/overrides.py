"""Overrides on the command line of ``python -m monai.bundle run``: unknown keys, paths, devices.

What is typed is changed twice before a bundle sees it: Fire takes it for Python, so that ``123`` is a
number and ``a#b`` is ``a`` with a comment; MONAI's configs take ``#`` for a separator of ids.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

from multiad_med.utils.choose import usable_device
from multiad_med.utils.configs import SYNTAX, check_length, is_path_id, unknown_id
from multiad_med.utils.errors import InputError
from multiad_med.utils.excepthook import is_monai_bundle, tell_user_errors

__all__ = ["check_overrides"]

# Here because this is what MONAI imports first of all from every config of a bundle, whatever the verb.
tell_user_errors()


def _options(command: Sequence[str], *, as_typed: bool = False) -> dict[str, Any]:
    """Return the options of ``run`` as MONAI gets them, over those of ``--args_file``.

    Args:
        command: its words.
        as_typed: whether the command line's values stay text; else Fire parses them.
    """
    import fire
    from fire.decorators import SetParseFn
    from monai.bundle import run, update_kwargs

    options: dict[str, Any] = {}

    @functools.wraps(run)
    def record(*args: Any, **kwargs: Any) -> None:
        options.update(inspect.signature(run).bind(*args, **kwargs).arguments)
        options.update(options.pop("override", {}))

    fire.Fire(SetParseFn(str)(record) if as_typed else record, command=list(command))
    return update_kwargs(options.pop("args_file", None), **options)


def _tracked(tracking: Any) -> set[str]:
    """Return the top-level keys that ``--tracking`` adds."""
    from monai.bundle import ConfigParser
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

    if tracking is None:
        return set()
    settings: Any = DEFAULT_EXP_MGMT_SETTINGS.get(str(tracking)) or ConfigParser.load_config_files(
        tracking
    )
    return set(settings.get("configs", {}))


def _refuse(key: str, value: Any, reason: str) -> InputError:
    return InputError(f"--{key} {value}: {reason}")


def _given_path(key: str, typed: Any, config: dict[str, Any]) -> str | None:
    """Return a path as it was typed; None where it is MONAI's to evaluate.

    Args:
        key: of the config.
        typed: text on the command line, or the value in an ``--args_file``.
        config: what references point into.

    Raises:
        InputError: when it is not clear which path is meant.
    """
    if not isinstance(typed, str):
        raise _refuse(key, typed, "a path in an args_file is a text; put it in quotes there.")
    sign = typed[:1]
    if sign not in SYNTAX:
        return typed
    plain = f"Give a path of that name as ./{typed}."
    if "#" in typed:
        raise _refuse(
            key,
            typed,
            f"after {sign!r} MONAI takes '#' for a separator of ids, written '::' too. {plain}",
        )
    if sign == "@" and typed[1:].split("::")[0] not in config:
        raise _refuse(key, typed, f"'@' refers to another key, and there is no such key. {plain}")
    if sign == "$" and not any(mark in typed for mark in "@'\"("):
        raise _refuse(key, typed, f"'$' begins an expression, which this is not. {plain}")
    return None


def _changed(value: Any) -> bool:
    """Return whether MONAI would change text in a value: ``#`` becomes ``::`` unless it is syntax."""
    if isinstance(value, (list, tuple)):
        return any(map(_changed, value))
    return isinstance(value, str) and "#" in value and not value.startswith(SYNTAX)


def _keep_as_typed(
    refs: MutableMapping[str, Any],
    options: dict[str, Any],
    typed: dict[str, Any],
    config: dict[str, Any],
    keys: Sequence[str],
) -> None:
    """Restore what the parsers changed, or would, in the parsed values before anything reads them."""
    for key in keys:
        name = key.removeprefix("+")
        value, parsed = typed[key], options.get(key)  # MONAI leaves out what Fire takes for None
        if is_path_id(name):
            none = value == "None" and config.get(name, "") is None
            value = None if none else _given_path(name, value, config)
        elif not isinstance(parsed, str):
            value = parsed  # a number, or a list that Fire made of what was typed
        same = value == parsed and not _changed(value)
        if value is None or same or not (is_path_id(name) or _changed(value)):
            continue
        if name not in config:  # a part of a part, whose parent MONAI fills in itself
            raise _refuse(
                name,
                typed[key],
                "it would be changed on its way: '#' becomes '::', a number or a word such as None "
                "loses its spelling. Only the config's own keys can have such values.",
            )
        refs[name] = value
    device = options.get("device", config.get("device"))
    if isinstance(device, str) and not device.startswith(SYNTAX):
        refs["device"] = usable_device(device)


def check_overrides(
    refs: MutableMapping[str, Any] | None = None, *, arguments: Sequence[str] | None = None
) -> None:
    """Make overrides on the command line mean what was typed, or refuse them.

    Unknown keys, which MONAI adds to the config and never reads, are refused. So are paths that look
    like MONAI's syntax, and absent devices. Paths (``run#2``, ``123``, ``None``) and a device that is a
    word (``cpu``) are put right.

    Does nothing unless this process is ``python -m monai.bundle run``. Keys of mix-in configs, of
    ``--args_file`` and of ``--tracking`` are known.

    Args:
        refs: values of the config by id that MONAI has parsed so far, and will not parse again. An
            expression in a config has them as ``__local_refs``.
        arguments: instead of ``sys.argv``.

    Raises:
        InputError: naming the key, and the nearest one that exists or what to give instead.
    """
    from monai.bundle import ConfigParser, run

    program, *command = sys.argv if arguments is None else arguments
    if not is_monai_bundle(program) or command[:1] != ["run"]:
        return
    options = _options(command[1:])
    config = ConfigParser(ConfigParser.load_config_files(options["config_file"])).get()
    tracked = _tracked(options.get("tracking"))
    typed = _options(command[1:], as_typed=True)
    keys = sorted(typed.keys() - inspect.signature(run).parameters.keys())
    check_length(keys)
    for key in keys:
        unknown = unknown_id(key.removeprefix("+"), config, tracked)
        if unknown is None or key.startswith("_meta"):
            continue
        near = difflib.get_close_matches(*unknown, n=1)
        hint = f" Did you mean --{near[0]}?" if near else ""
        raise InputError(
            f"--{key}: there is no {unknown[0]} in {options['config_file']}.{hint} What can be "
            "overridden are the config's own keys; a key of your own needs a second config file "
            "that has it."
        )
    if refs is not None:
        for key in keys:  # Fire gives a flag without a value as True
            if is_path_id(key) and typed[key] == "True" and "True" not in " ".join(command):
                raise InputError(f"--{key} has no value; give a path.")
        _keep_as_typed(refs, options, typed, {**config, **dict.fromkeys(tracked)}, keys)
