"""``multiad label``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.commands import new_app

app = new_app(help="Serve bundles to 3D Slicer and OHIF by MONAI Label.")


@app.command(
    epilog="Example: multiad label init app --bundle multiad_brain_mri=run/model.pt",
    no_args_is_help=True,
)
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the app.")],
    bundles: Annotated[
        list[str] | None,
        typer.Option(
            "--bundle",
            metavar="NAME=MODEL.PT",
            help="A bundle and its model, all that have one by default. Repeat it for several.",
        ),
    ] = None,
) -> None:
    """Make a folder into a MONAI Label app, or add bundles to it."""
    from multiad_med.label.launch import init as make

    for name, model in make(folder, bundles or []).items():
        typer.echo(f"{name}: {model or 'no model yet; it can be trained only'}")


@app.command(epilog="Example: multiad label start app studies/", no_args_is_help=True)
def start(
    folder: Annotated[Path, typer.Argument(help="Folder that `multiad label init` made.")],
    studies: Annotated[
        str, typer.Argument(help="A folder of studies, or the address of a DICOMweb server.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Print MONAI Label's own command for the app, and run it."""
    from multiad_med.label.launch import start as run

    run(folder, studies, host=host, port=port)
