"""Where bundles and recipes are, in a source tree or a package, and how Python runs a bundle."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiad_med.utils.choose import usable_device
from multiad_med.utils.configs import SYNTAX, check_length, is_path_id, literal, unknown_id
from multiad_med.utils.errors import FileError, InputError, unwrapped

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

__all__ = [
    "bundle_of_domain",
    "bundle_path",
    "bundle_workflow",
    "bundles_dir",
    "check_settings",
    "config_files",
    "domains",
    "presets",
    "read_config",
    "recipes_dir",
    "run_bundle",
    "run_workflow",
    "with_preset",
]


TRAINING = "train.json"
_BASES = {"evaluate.json": "inference.json"}
_MARK = "card#settings#preset"


def _shipped(name: str) -> Path:
    """Return a folder inside the installed package, or beside it in a source tree."""
    package = Path(__file__).parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileError(f"No {name} beside or inside {package}; install the package again.")


def bundles_dir() -> Path:
    """Return the folder of the bundles.

    Raises:
        FileError: when there is none.
    """
    return _shipped("bundles")


def recipes_dir() -> Path:
    """Return the folder of the preparation recipes.

    Raises:
        FileError: when there is none.
    """
    return _shipped("preprocessing")


def bundle_path(name: str) -> Path:
    """Return the folder of one bundle.

    Raises:
        InputError: on an unknown name.
    """
    folder = bundles_dir() / name
    if not (folder / "configs").is_dir():
        known = sorted(p.name for p in bundles_dir().iterdir() if (p / "configs").is_dir())
        raise InputError(f"Unknown bundle {name!r}; choose one of {known}.")
    return folder


def domains() -> list[str]:
    """Return the domains that have a bundle, such as ``brain_mri``."""
    folders = (p.name for p in bundles_dir().iterdir() if (p / "configs").is_dir())
    return sorted(name.removeprefix("multiad_") for name in folders)


def bundle_of_domain(domain: str) -> str:
    """Return the name of a domain's bundle.

    Raises:
        InputError: on an unknown domain, with the nearest one.
    """
    known = domains()
    if domain not in known:
        near = difflib.get_close_matches(domain, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"Unknown domain {domain!r}.{hint} Choose one of {', '.join(known)}.")
    return f"multiad_{domain}"


def config_files(config: str) -> list[str]:
    """Return the files of a run, as MONAI's ``config_file`` takes them.

    As in MONAI's model zoo, ``evaluate.json`` has only what it changes of ``inference.json``.

    Args:
        config: file in a bundle's ``configs``, such as ``train.json``.
    """
    return [_BASES[config], config] if config in _BASES else [config]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _own_presets(bundle: str) -> list[str]:
    """Return a bundle's presets that are configs of their own: they name themselves on the card."""
    files = (bundle_path(bundle) / "configs").glob("*.json")
    return sorted(f.stem for f in files if _read(f).get(_MARK) == f.stem)


def presets(bundle: str) -> list[str]:
    """Return the names that a training takes as ``preset``: the bundle's configs, then networks."""
    from multiad_med.networks import PRESETS

    return list(dict.fromkeys([*_own_presets(bundle), *PRESETS]))


def with_preset(
    bundle: str, config: str, settings: Mapping[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Return the configs of a run, and the settings on top of them.

    A preset that is a config, such as ``paper``, is read over the training's own. Any other is a setting.

    Raises:
        InputError: on an unknown preset of a training, with the nearest one.
    """
    preset = settings.get("preset")
    if config != TRAINING or preset is None or str(preset).startswith(SYNTAX):
        return config_files(config), dict(settings)
    if preset in _own_presets(bundle):
        return [config, f"{preset}.json"], {k: v for k, v in settings.items() if k != "preset"}
    if preset not in (known := presets(bundle)):
        near = difflib.get_close_matches(str(preset), known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"preset: there is none {preset!r}.{hint} Choose one of {', '.join(known)}."
        )
    return [config], dict(settings)


def check_settings(bundle: str, config: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that are not ids of a bundle's config, and unknown presets.

    Args:
        bundle: its name.
        config: file in its ``configs``, such as ``train.json``.
        settings: values by id, such as ``size`` or ``loss#hardest``.

    Raises:
        InputError: naming the first that is unknown, and the nearest that exists; on two that exclude
            each other.
    """
    configs, names = with_preset(bundle, config, settings)
    content = read_config(bundle, *configs)
    check_length(names)
    for name in names:
        if (unknown := unknown_id(name, content)) is not None:
            near = difflib.get_close_matches(*unknown, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{name}: there is no setting {unknown[0]} in {' and '.join(configs)} of {bundle}.{hint}"
            )


def read_config(bundle: str, config: str, *overlays: str) -> dict[str, Any]:
    """Read a config of a bundle, without resolving it.

    Args:
        bundle: its name.
        config: file in its ``configs``; ``evaluate.json`` comes with what it changes.
        overlays: further files there, which MONAI reads over the first.

    Raises:
        InputError: on an unknown bundle.
    """
    folder = bundle_path(bundle) / "configs"
    first, *over = [folder / name for name in (*config_files(config), *overlays)]
    if not over:
        return _read(first)
    from monai.bundle import ConfigParser

    content: dict[str, Any] = ConfigParser.load_config_files([first, *over])
    return content


def bundle_workflow(
    name: str, config: str, *, workflow_type: str, **override: Any
) -> ConfigWorkflow:
    """Return a config of a bundle, ready to run in this process.

    Args:
        name: of the bundle.
        config: file in its ``configs``, such as ``train.json``.
        workflow_type: ``train`` or ``infer``.
        override: ids of the config and their values. Paths are taken as they are; a device may be a
            word. Other texts may be MONAI's expressions. A training's ``preset`` is one of
            :func:`presets`.

    Raises:
        InputError: on an unknown id or preset, with the nearest that exists, or an absent device.
    """
    from monai.bundle import ConfigWorkflow

    root = bundle_path(name)
    check_settings(name, config, override)
    configs, override = with_preset(name, config, override)
    device = override.get("device")
    if isinstance(device, str) and not device.startswith(SYNTAX):
        override["device"] = usable_device(device)
    return ConfigWorkflow(
        workflow_type=workflow_type,
        config_file=[str(root / "configs" / file) for file in configs],
        meta_file=str(root / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=literal(str(root)),
        **{k: literal(v, expressions=not is_path_id(k)) for k, v in override.items()},
    )


def run_workflow(workflow: ConfigWorkflow) -> None:
    """Run a bundle's workflow, as ``python -m monai.bundle run`` does.

    Raises:
        MultiADError: on what a user can mend, without the errors that MONAI wraps around it.
    """
    with unwrapped():
        workflow.initialize()
        workflow.run()
        workflow.finalize()


def run_bundle(name: str, config: str, *, workflow_type: str, **override: Any) -> None:
    """Make a workflow by :func:`bundle_workflow`, and run it by :func:`run_workflow`."""
    run_workflow(bundle_workflow(name, config, workflow_type=workflow_type, **override))
