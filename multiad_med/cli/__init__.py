"""The command ``multiad``: one file per verb, heavy imports inside the functions."""

from __future__ import annotations

from typing import Annotated

import typer

import multiad_med
from multiad_med.cli import (
    benchmark,
    bundles,
    calibrate,
    convert,
    cross_calibrate,
    demo,
    dicom,
    evaluate,
    export,
    label,
    predict,
    prepare,
    serve,
    train,
    view,
    weights,
)
from multiad_med.cli.commands import DEBUG, Commands
from multiad_med.utils.memory import keep_freed_memory

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    epilog="Example: multiad train brain_mri normal/ -o run/",
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
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the trace of an error, wherever this stands.")
    ] = False,
) -> None:
    """Learn what is normal, show where a new study departs from it. Not for diagnostic use."""
    keep_freed_memory()


for verb, module in {
    "train": train,
    "predict": predict,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "view": view,
}.items():
    app.command(verb, epilog=module.EXAMPLE, no_args_is_help=True)(getattr(module, verb))
app.add_typer(serve.app, name="serve")
app.add_typer(label.app, name="label")
app.command(epilog=prepare.EXAMPLE, no_args_is_help=True)(prepare.prepare)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(export.app, name="export")
app.add_typer(weights.app, name="weights")
app.command(epilog=bundles.EXAMPLE)(bundles.bundles)
app.command(epilog=demo.EXAMPLE, no_args_is_help=True)(demo.demo)
app.command(epilog=dicom.EXAMPLE, no_args_is_help=True)(dicom.dicom)
app.command("cross-calibrate", epilog=cross_calibrate.EXAMPLE, no_args_is_help=True)(
    cross_calibrate.cross_calibrate
)
app.command(epilog=convert.EXAMPLE, no_args_is_help=True)(convert.convert)

# Spellings of earlier versions.
app.command(hidden=True)(bundles.bundle)
app.command(hidden=True)(benchmark.compare)
app.command(hidden=True)(benchmark.ablate)
