"""``multiad dicom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.choices import DicomResult, Segments
from multiad_med.cli.options import output_option

EXAMPLE = (
    "Example: multiad dicom series/ maps/series_anomaly_map.nii.gz "
    "--scores maps/series_anomaly.json -o results/"
)


def dicom(
    series: Annotated[
        Path, typer.Argument(help="The folder of one series, or a multi-frame file.")
    ],
    anomaly_map: Annotated[
        Path, typer.Argument(metavar="MAP", help="The NIfTI map that was made from the series.")
    ],
    scores: Annotated[Path, typer.Option(help="The JSON that lies beside the map.")],
    output: Annotated[Path, output_option("New folder for the DICOM files.")],
    kinds: Annotated[
        list[DicomResult] | None,
        typer.Option("--kind", help="What to write, all by default. Repeat it for several."),
    ] = None,
    segments: Annotated[
        Segments, typer.Option(help="What the segmentation tells apart.")
    ] = Segments.SEVERITY_LEVELS,
) -> None:
    """Write a study's map and scores as DICOM, for a PACS. It needs the extra dicom."""
    from multiad_med.dicom.write.results import DicomKind, write_dicom_results
    from multiad_med.dicom.write.results import Segments as SegmentKind
    from multiad_med.utils.json_files import read_json

    files = write_dicom_results(
        source=series,
        anomaly_map=anomaly_map,
        scores=read_json(scores),
        output_dir=output,
        kinds={DicomKind(kind) for kind in kinds or DicomKind},
        segments=SegmentKind(segments),
    )
    for kind, paths in files.items():
        typer.echo(
            f"{kind}: {len(paths)} file(s)" if paths else f"{kind}: none, nothing is flagged"
        )
