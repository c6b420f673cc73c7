"""``multiad view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.choices import Window
from multiad_med.cli.options import output_option

EXAMPLE = "Example: multiad view study.nii.gz maps/study_anomaly_map.nii.gz -o view/"


def view(
    study: Annotated[
        Path, typer.Argument(help="A NIfTI file, the folder of a DICOM series, or an image.")
    ],
    anomaly_map: Annotated[
        Path, typer.Argument(metavar="MAP", help="Its map, as `multiad predict` wrote it.")
    ],
    output: Annotated[Path, output_option("Folder for montage.png and viewer.html.")],
    window: Annotated[
        Window | None, typer.Option(help="Window of a CT, abdomen by default.")
    ] = None,
    bscans: Annotated[bool, typer.Option("--bscans", help="The study is an OCT volume.")] = False,
) -> None:
    """Show a study under its anomaly map: a montage, and a page that needs no network."""
    from multiad_med.visualize import view as view_study

    for path in view_study(study, anomaly_map, output, window=window, bscans=bscans):
        typer.echo(path)
