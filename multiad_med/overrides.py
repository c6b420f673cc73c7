"""Overrides on the command line of ``python -m monai.bundle run`` that the config does not have."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["check_overrides"]


def _options(command: Sequence[str]) -> dict[str, Any]:
    """The options of ``run`` as MONAI gets them: parsed by Fire, over those of ``--args_file``."""
    import fire
    from monai.bundle import run, update_kwargs

    options: dict[str, Any] = {}

    @functools.wraps(run)
    def record(*args: Any, **kwargs: Any) -> None:
        options.update(inspect.signature(run).bind(*args, **kwargs).arguments)
        options.update(options.pop("override", {}))

    fire.Fire(record, command=list(command))
    return update_kwargs(options.pop("args_file", None), **options)


def _tracked(tracking: Any) -> set[str]:
    """Top-level keys that ``--tracking`` adds."""
    from monai.bundle import ConfigParser
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

    if tracking is None:
        return set()
    settings: Any = DEFAULT_EXP_MGMT_SETTINGS.get(str(tracking)) or ConfigParser.load_config_files(
        tracking
    )
    return set(settings.get("configs", {}))


def _unknown(key: str, config: Any, tracked: set[str]) -> tuple[str, list[str]] | None:
    """A key's part that is not in the config, as far as that part, and what could stand there.

    An argument that a component's config leaves out is not unknown: its class may have it.
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


def check_overrides(arguments: Sequence[str] | None = None) -> None:
    """Refuse unknown keys on the command line, which MONAI adds to the config and never reads.

    Does nothing unless this process is ``python -m monai.bundle run``. Keys of mix-in configs, of
    ``--args_file`` and of ``--tracking`` are known.

    Args:
        arguments: instead of ``sys.argv``.

    Raises:
        SystemExit: with a message that names the key and the nearest one that exists. Any other
            exception would be buried in MONAI's own.
    """
    from monai.bundle import ConfigParser, run

    program, *command = sys.argv if arguments is None else arguments
    if Path(program).parts[-3:] != ("monai", "bundle", "__main__.py") or command[:1] != ["run"]:
        return
    options = _options(command[1:])
    config = ConfigParser(ConfigParser.load_config_files(options["config_file"])).get()
    tracked = _tracked(options.get("tracking"))
    for key in options.keys() - inspect.signature(run).parameters.keys():
        unknown = _unknown(key.removeprefix("+"), config, tracked)
        if unknown is None or key.startswith("_meta"):
            continue
        near = difflib.get_close_matches(*unknown, n=1)
        hint = f" Did you mean --{near[0]}?" if near else ""
        raise SystemExit(
            f"Error: --{key}: there is no {unknown[0]} in {options['config_file']}.{hint} What can be "
            "overridden are the config's own keys; a key of your own needs a second config file "
            "that has it."
        )
