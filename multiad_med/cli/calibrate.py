"""``multiad calibrate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.data import check_data
from multiad_med.cli.messages import show_log
from multiad_med.cli.options import (
    Bundle,
    Device,
    Images,
    Settings,
    check_device,
    check_model,
    output_option,
    parse_checked,
)

EXAMPLE = "Example: multiad calibrate run/model.pt good/ --rate 0.01 -o run/calibrated.pt"


def calibrate(
    model: Annotated[Path, typer.Argument(help="The model.pt of a finished training.")],
    good: Annotated[Path, typer.Argument(help="Normal studies that the model has not seen.")],
    bad: Annotated[
        Path | None,
        typer.Option(help="Anomalous studies, to tell how many of them are found at each rate."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of normal studies that may be called anomalous."),
    ] = None,
    output: Annotated[
        Path | None, output_option("The new model file; by default beside the old one.")
    ] = None,
    images: Images = None,
    settings: Settings = None,
    device: Device = "auto",
    bundle: Bundle = None,
) -> None:
    """Set the thresholds of a model anew, from normal studies alone; nothing is trained."""
    check_model(model)
    check_device(device)

    show_log()

    from multiad_med.detector import AnomalyDetector
    from multiad_med.networks import bundle_of_model
    from multiad_med.recalibration import calibration_text

    domain = bundle_of_model(model, bundle).removeprefix("multiad_")
    for data in (good, bad):
        if data is not None:
            check_data(data, domain)
    chosen = parse_checked(
        settings, bundle=f"multiad_{domain}", config="train.json", image_glob=images
    )

    detector = AnomalyDetector.load(model, device=device, bundle=bundle)
    target = detector.calibrate(good, bad=bad, rate=rate, output=output, **chosen)
    typer.echo(calibration_text(target))
    typer.echo(f"The model with its new thresholds is {target}.")
    typer.echo(f"Next: multiad predict NEW -m {shlex.quote(str(target))} -o MAPS")
