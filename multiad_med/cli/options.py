"""Options that several commands have, declared once, and what is checked of them before work begins."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from multiad_med.cli.choices import Runtime as RuntimeChoice
from multiad_med.utils.errors import InputError

__all__ = [
    "Bundle",
    "Device",
    "Images",
    "Labels",
    "Model",
    "Ray",
    "Runtime",
    "Seed",
    "Settings",
    "check_device",
    "check_model",
    "check_output",
    "output_option",
    "parse_checked",
    "refuse_address",
]

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+:)/+(.*)", re.IGNORECASE)  # a path has one slash of two

_OF_CONFIG = {
    "image_glob": "--images",
    "label_glob": "--labels",
    "seed": "--seed",
    "preset": "--preset",
    "runtime": "--runtime",
    "smallest": "--smallest",
    "image_false_positive_rate": "--rate",
    "volume_false_positive_rate": "--rate",
}
_OWN_OPTIONS = {
    **_OF_CONFIG,
    "bundle_root": "the domain or the model",
    "ckpt_dir": "--output",
    "ckpt_path": "--model",
    "dataset_dir": "the command's argument",
    "device": "--device",
    "output_dir": "--output",
}

Model = Annotated[Path, typer.Option("--model", "-m", help="The model.pt of a finished training.")]
Device = Annotated[
    str,
    typer.Option("--device", help="Where to compute: auto, cpu, cuda, or one of several: cuda:1."),
]
Runtime = Annotated[
    RuntimeChoice,
    typer.Option(
        "--runtime",
        help="What computes the maps. auto: the fastest that is installed and gives PyTorch's maps; with "
        "--ray it is torch.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Start of the random numbers.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another value for an id of the bundle's config. Repeat it for several.",
    ),
]
Bundle = Annotated[
    str | None,
    typer.Option(
        "--bundle", help="The bundle of a model of an older version, which does not name it."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Spread the work by Ray: local (this machine), auto (the cluster that it belongs to), or "
        "HOST:PORT of a cluster's head.",
    ),
]
Images = Annotated[
    str | None,
    typer.Option("--images", metavar="GLOB", help="Which files of a folder are the volumes."),
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="GLOB", help="Which files of a folder are lesion masks."),
]


def output_option(help_text: str, *, address: bool = False) -> Any:
    """Return the option ``-o``, with what a command writes there, and whether that may be an address."""
    callback = None if address else refuse_address
    return typer.Option("--output", "-o", help=help_text, callback=callback)


def refuse_address(value: Path | None) -> Path | None:
    """Return an output that is a path; a folder called ``s3:`` is what nobody means.

    Raises:
        InputError: on an address.
    """
    address = _ADDRESS.match(str(value))
    if address:
        raise InputError(
            f"--output {address[1]}//{address[2]}: only `multiad predict --ray` writes to object "
            "storage. Give a folder."
        )
    return value


def check_model(model: Path) -> Path:
    """Refuse what is no model file, before anything heavy is imported.

    Raises:
        InputError: naming the command that writes one.
    """
    if model.is_file():
        return model
    inside = model / "model.pt"
    raise InputError(
        f"There is no model file {model}. "
        + (f"Did you mean {inside}?" if inside.is_file() else "`multiad train` writes model.pt.")
    )


def check_device(name: str) -> str:
    """Return the name of a device that is there; for ``auto`` the GPU's, where there is one.

    Raises:
        InputError: when the device is not there.
    """
    from multiad_med.utils.choose import usable_device

    return str(usable_device(name))


def check_output(folder: Path, *, own: Collection[str]) -> Path:
    """Refuse an output folder that holds anything but an earlier run of the command.

    Args:
        folder: new, empty, or of an earlier run.
        own: globs of files by which an earlier run is known.

    Raises:
        InputError: naming what is in the folder.
    """
    if folder.is_dir():
        others = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if others and not any(next(folder.glob(glob), None) for glob in own):
            raise InputError(
                f"The output folder {folder} holds other files, such as {others[0]}. "
                "Give --output a new folder."
            )
    elif folder.exists():
        raise InputError(f"The output {folder} is a file. Give --output a new folder.")
    return folder


def parse_checked(
    pairs: Sequence[str] | None, *, bundle: str, config: str, **given: Any
) -> dict[str, Any]:
    """Return the settings of ``--set`` and of options, once it is sure that the bundle's config has them.

    Args:
        pairs: ``KEY=VALUE``.
        bundle: its name.
        config: file in its ``configs``.
        given: ids of the config that have an option of their own, with its value; None leaves it out.

    Raises:
        InputError: naming the nearest id of the config, or the option that is meant.
    """
    from multiad_med.resources import check_settings, read_config
    from multiad_med.utils.settings import parse_settings

    settings = parse_settings(pairs or [])
    given = {key: value for key, value in given.items() if value is not None}
    for key in settings:
        if key in _OWN_OPTIONS and (key in given or key not in _OF_CONFIG):
            value = f" {given[key]}" if key in given else ""
            raise InputError(
                f"--set {key}={settings[key]}: this is given by {_OWN_OPTIONS[key]}{value}."
            )
    preset = {key: value for key, value in given.items() if key == "preset"}
    for option, chosen in (("--", preset), ("--set ", settings | preset)):
        try:
            check_settings(bundle, config, chosen)
        except InputError as error:
            raise InputError(f"{option}{error}") from error
    for key in given:
        if key not in read_config(bundle, config):
            hint = " Give a folder of the images only." if key.endswith("_glob") else ""
            raise InputError(f"{_OWN_OPTIONS[key]}: {bundle} has no such choice.{hint}")
    return {**settings, **given}
