"""``multiad evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from multiad_med.cli.choices import Part
from multiad_med.cli.commands import PartlyFailedError
from multiad_med.cli.data import check_data
from multiad_med.cli.messages import show_log
from multiad_med.cli.options import (
    Bundle,
    Device,
    Images,
    Labels,
    Model,
    Ray,
    Settings,
    check_device,
    check_model,
    check_output,
    output_option,
    parse_checked,
)
from multiad_med.utils.errors import InputError

REPORT = ("metrics.json", "summary.json", "report.html")
EXAMPLE = (
    "Example: multiad evaluate labelled/ -m run/model.pt -o report/ --labels '**/*_seg.nii.gz'"
)


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(help="Labelled studies: a folder, a datalist.json, or prepared slices."),
    ],
    model: Model,
    output: Annotated[Path, output_option("Folder for metrics, tables and report.html.")],
    images: Images = None,
    labels: Labels = None,
    settings: Settings = None,
    part: Annotated[
        Part, typer.Option(help="Which half of the test set of prepared slices.")
    ] = Part.ALL,
    logs: Annotated[
        Path | None, typer.Option(help="Folder of the training's log, for its curves.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="How many resamples the intervals are made from.")
    ] = 1000,
    device: Device = "auto",
    bundle: Bundle = None,
    ray: Ray = None,
) -> None:
    """Measure how good a model is, how certain that is, and where it fails: one HTML page."""
    check_model(model)
    check_output(output, own=REPORT)
    if ray is None:
        check_device(device)
    elif part is not Part.ALL:
        raise InputError("--part: only prepared slices have parts, and these need no --ray.")

    show_log()

    from rich.console import Console

    from multiad_med.data import StudyError
    from multiad_med.detector import AnomalyDetector
    from multiad_med.evaluation.summary import print_summary
    from multiad_med.networks import bundle_of_model

    bundle = bundle_of_model(model, bundle)
    check_data(data, bundle.removeprefix("multiad_"))
    chosen = parse_checked(settings, bundle=bundle, config="evaluate.json")
    given: dict[str, Any] = {
        "labels": labels,
        "images": images,
        "training_logs": logs,
        "bootstrap": bootstrap,
    }
    try:
        if ray is None:
            detector = AnomalyDetector.load(model, device=device, bundle=bundle)
            metrics = detector.evaluate(data, output=output, part=str(part), **given, **chosen)
        else:
            metrics = _evaluate_by_ray(
                data, model, output, bundle=bundle, address=ray, device=device, **given, **chosen
            )
    except StudyError as error:
        if _any_done(output):
            raise PartlyFailedError(str(error)) from error
        raise
    print_summary(metrics, Console(), title=str(data))
    typer.echo(f"The report is {output / 'report.html'}.")


def _evaluate_by_ray(
    data: Path, model: Path, output: Path, *, images: Any, labels: Any, **options: Any
) -> dict[str, Any]:
    from multiad_med.scale.evaluate import evaluate_studies
    from multiad_med.utils.json_files import read_json

    globs = {"image_glob": images, "label_glob": labels}
    options |= {name: glob for name, glob in globs.items() if glob is not None}
    evaluate_studies(data, model, output, **options)
    metrics: dict[str, Any] = read_json(output / "metrics.json")
    return metrics


def _any_done(output: Path) -> bool:
    """Return whether a run over studies has done some of them."""
    from multiad_med.utils.json_files import read_json

    summary = output / "summary.json"
    return summary.is_file() and bool(read_json(summary)["counts"].get("done"))
