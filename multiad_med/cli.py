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
def prepare(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe (see --list), or a YAML file.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder, table, .zip or .tar of the data set as published.")
    ] = None,
    target: Annotated[Path | None, typer.Option(help="Folder for the slices.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a setting of the recipe.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one per processor.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Explain all recipes.")] = False,
    check: Annotated[
        Path | None, typer.Option(help="Say what a folder holds and which recipe fits.")
    ] = None,
) -> None:
    """Turn a data set's files, as published, into slices for training and test.

    Interrupted, the same command goes on where it stopped. Studies that cannot be prepared are
    listed at the end, with status 1.
    """
    from multiad_med.preparation import command

    failed = False
    try:
        if show_list:
            typer.echo(command.explain_recipes())
        elif check is not None:
            typer.echo(command.explain_folder(check))
        elif recipe is None or source is None or target is None:
            raise typer.BadParameter(
                "Give a recipe, --source and --target; or --list; or --check and a folder."
            )
        else:
            summary = command.run(recipe, source, target, settings or [], workers)
            typer.echo(str(summary))
            failed = bool(summary.failures)
    except command.ERRORS as error:
        typer.echo(f"Error: {error}", err=True)
        failed = True
    if failed:
        raise typer.Exit(1)


@app.command()
def export(
    store: Annotated[Path, typer.Argument(help="Folder that `multiad prepare` wrote.")],
    target: Annotated[Path, typer.Option(help="New folder for the pictures.")],
    layout: Annotated[str, typer.Option(help="mvtec or bmad.")] = "mvtec",
    bits: Annotated[int, typer.Option(help="8, or 16 for one grey channel.")] = 8,
) -> None:
    """Write prepared slices as a tree of PNG files that other tools read."""
    from multiad_med.preparation import ExportLayout, export_pictures

    if layout not in list(ExportLayout):
        raise typer.BadParameter(f"layout is one of {[str(name) for name in ExportLayout]}.")
    try:
        count = export_pictures(store, target, layout=ExportLayout(layout), bits=bits)
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{count} slices written to {target}")


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
