"""``multiad convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.options import Settings, check_model, output_option

EXAMPLE = "Example: multiad convert old.pt --bundle multiad_brain_mri -o model.pt"


def convert(
    model: Annotated[Path, typer.Argument(help="A model file of an older version.")],
    bundle: Annotated[str, typer.Option(help="The bundle that it was trained with.")],
    output: Annotated[Path, output_option("The new model file.")],
    settings: Settings = None,
) -> None:
    """Give a model of an older version a card, which says what it is."""
    check_model(model)

    from multiad_med.training.add_card import convert_model
    from multiad_med.utils.settings import parse_settings

    convert_model(model, output, bundle=bundle, settings=parse_settings(settings or []))
    typer.echo(f"{output}: it gives maps, and no verdicts until it is calibrated again.")
