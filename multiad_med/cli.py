"""The command ``multiad``: one thin command per verb, heavy imports inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import multiad_med

app = typer.Typer(
    help="Multi-AD Med: learn what is normal, show where a new study departs from it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"multiad {multiad_med.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Learn what is normal, show where a new study departs from it. Not for diagnostic use."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the cohort, maps, pictures, metrics.")],
    seed: Annotated[int, typer.Option(help="Of the cohort and the training.")] = 0,
) -> None:
    """Train on an embedded cohort of brains and show maps of unseen test volumes (about 7 minutes)."""
    from multiad_med.demo import run_demo

    run_demo(output, seed=seed)


@app.command()
def bundle(
    name: Annotated[str, typer.Argument(help="Name of a bundle, such as multiad_brain_mri.")],
) -> None:
    """Print the folder of a bundle, for `python -m monai.bundle`."""
    from multiad_med.resources import bundle_path

    try:
        typer.echo(bundle_path(name))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
