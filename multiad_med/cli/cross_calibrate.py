"""``multiad cross-calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.messages import show_log
from multiad_med.cli.options import Model, Settings, check_model, output_option, parse_checked

EXAMPLE = "Example: multiad cross-calibrate normal/ -m run/model.pt -o cross/"


def cross_calibrate(
    data: Annotated[
        Path, typer.Argument(help="What the model was trained on: a folder or a datalist.json.")
    ],
    model: Model,
    output: Annotated[Path, output_option("Folder for the folds and the new model.pt.")],
    folds: Annotated[int, typer.Option(min=2, help="How many models are trained.")] = 4,
    settings: Settings = None,
) -> None:
    """Set a model's verdicts from its training subjects, where few are held out.

    Each fold trains a model on the other subjects and scores its own. The p-values are approximate.
    """
    check_model(model)

    from multiad_med.networks import bundle_of_model

    chosen = parse_checked(settings, bundle=bundle_of_model(model), config="train.json")

    show_log()

    from multiad_med.cross_calibration import cross_calibrate as run

    target = run(model, data, output, folds=folds, **chosen)
    typer.echo(f"model with verdicts from {folds} folds: {target}")
