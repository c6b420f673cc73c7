"""Where bundles and recipes are, in a source tree or a package, and how Python runs a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multiad_med.utils.configs import is_path_id, literal
from multiad_med.utils.errors import FileError, InputError

__all__ = ["bundle_path", "bundles_dir", "read_config", "recipes_dir", "run_bundle"]


def _shipped(name: str) -> Path:
    """A folder that is inside the installed package, or beside it in a source tree."""
    package = Path(__file__).parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileError(f"No {name} beside or inside {package}; install the package again.")


def bundles_dir() -> Path:
    """Folder of the bundles.

    Raises:
        FileError: when there is none.
    """
    return _shipped("bundles")


def recipes_dir() -> Path:
    """Folder of the preparation recipes.

    Raises:
        FileError: when there is none.
    """
    return _shipped("preprocessing")


def bundle_path(name: str) -> Path:
    """Folder of one bundle.

    Raises:
        InputError: on an unknown name.
    """
    folder = bundles_dir() / name
    if not (folder / "configs").is_dir():
        known = sorted(p.name for p in bundles_dir().iterdir() if (p / "configs").is_dir())
        raise InputError(f"Unknown bundle {name!r}; choose one of {known}.")
    return folder


def read_config(bundle: str, config: str) -> dict[str, Any]:
    """A config of a bundle as it is written.

    Raises:
        InputError: on an unknown bundle.
    """
    file = bundle_path(bundle) / "configs" / config
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def run_bundle(name: str, config: str, *, workflow_type: str, **override: Any) -> None:
    """Run a config of a bundle in this process, as ``python -m monai.bundle run`` does.

    Args:
        name: of the bundle.
        config: file in its ``configs``, such as ``train.json``.
        workflow_type: ``train`` or ``infer``.
        override: ids of the config and their values. Paths are taken as they are; other texts may be
            MONAI's expressions.
    """
    from monai.bundle import ConfigWorkflow

    root = bundle_path(name)
    workflow = ConfigWorkflow(
        workflow_type=workflow_type,
        config_file=str(root / "configs" / config),
        meta_file=str(root / "configs" / "metadata.json"),
        logging_file=False,
        bundle_root=literal(str(root)),
        **{k: literal(v, expressions=not is_path_id(k)) for k, v in override.items()},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
