"""``multiad prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from multiad_med.cli.options import Ray, output_option
from multiad_med.utils.errors import InputError

EXAMPLE = "Example: multiad prepare brats2021 --source BraTS2021 -o slices"


def prepare(
    recipe: Annotated[
        str | None, typer.Argument(help="The name of a recipe (see --list), or a YAML file.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="The data set as published: a folder, table, .zip or .tar."),
    ] = None,
    output: Annotated[Path | None, output_option("Folder for the slices.")] = None,
    target: Annotated[Path | None, typer.Option("--target", hidden=True)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another value for a setting of the recipe. Repeat it for several.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="How many processes, by default one per processor.")
    ] = None,
    ray: Ray = None,
    show_list: Annotated[bool, typer.Option("--list", help="Explain all recipes.")] = False,
    check: Annotated[
        Path | None, typer.Option(help="Say what a folder holds and which recipe fits.")
    ] = None,
) -> None:
    """Turn a data set, as published, into slices for training and test.

    Interrupted, the same command goes on where it stopped. Studies that cannot be prepared are
    listed at the end, with status 1.
    """
    from multiad_med.preparation import prepare_command as command

    output = output or target
    if show_list:
        typer.echo(command.explain_recipes())
    elif check is not None:
        typer.echo(command.explain_folder(check))
    elif recipe is None or source is None or output is None:
        raise typer.BadParameter(
            "Give a recipe, --source and --output; or --list; or --check and a folder."
        )
    else:
        options: dict[str, Any] = {"workers": workers}
        if ray is not None:
            if workers is not None:
                raise InputError("--workers: not with --ray, which takes what the cluster has.")
            from multiad_med.scale.prepare import spread_by_ray

            options["spread"] = spread_by_ray(ray)
        summary = command.run(recipe, source, output, settings or [], **options)
        typer.echo(str(summary))
        if summary.failures:
            raise typer.Exit(1)
