"""``multiad predict``."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiad_med.cli.choices import DicomResult
from multiad_med.cli.choices import Runtime as RuntimeChoice
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
    Runtime,
    Settings,
    check_device,
    check_model,
    check_output,
    output_option,
    parse_checked,
    refuse_address,
)
from multiad_med.utils.errors import InputError
from multiad_med.utils.quick_start import import_monai_quickly

if TYPE_CHECKING:
    from multiad_med.result import Result

SHOWN = 200
"""Rows of a run by Ray that are printed, at most."""

MAPS = ("summary.json", "**/*_anomaly.json")
EXAMPLE = "Example: multiad predict new/ -m run/model.pt -o maps/"


def dicom_kinds(given: str | None) -> list[DicomResult]:
    """Return the kinds of DICOM results in a comma-separated list."""
    kinds = []
    for word in (given or "").split(","):
        if word and word not in list(DicomResult):
            known = ", ".join(f"'{kind}'" for kind in DicomResult)
            raise typer.BadParameter(f"'{word}' is not one of {known}.")
        kinds += [DicomResult(word)] if word else []
    return kinds


def predict(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of studies, one study, or a datalist.json; with --ray also a table of paths "
            "or addresses, or a DICOMweb server."
        ),
    ],
    model: Model,
    output: Annotated[
        str,
        output_option(
            "Folder for maps, masks, scores and their summary; with --ray also an address such as "
            "s3://bucket/maps.",
            address=True,
        ),
    ],
    dicom: Annotated[
        str | None,
        typer.Option(
            metavar="seg,pm,overlay,sr",
            help="DICOM results of DICOM series, beside their maps: one kind, or several with commas.",
            autocompletion=lambda: list(DicomResult),
        ),
    ] = None,
    images: Images = None,
    labels: Labels = None,
    settings: Settings = None,
    device: Device = "auto",
    runtime: Runtime = RuntimeChoice.AUTO,
    bundle: Bundle = None,
    ray: Ray = None,
) -> None:
    """Show where new studies depart from normal: a map, a score and a verdict for each.

    Studies that are done already are not done again. If some fail, the others are done, and the
    status is 1.
    """
    kinds = dicom_kinds(dicom)
    if kinds:
        _need_highdicom()
    check_model(model)
    output = output.removeprefix("file://")
    folder = Path(output)
    if ray is None:
        refuse_address(folder)
    if "://" not in output:
        check_output(folder, own=MAPS)
    if ray is None:
        import_monai_quickly()
        check_device(device)
    elif kinds:
        raise InputError("--dicom: not with --ray. Run `multiad dicom` for each map afterwards.")

    from multiad_med.networks import bundle_of_model, read_card

    bundle = bundle_of_model(model, bundle)
    new = Path(source)
    if ray is None or "://" not in source:
        check_data(new, bundle.removeprefix("multiad_"))
    chosen = parse_checked(
        settings,
        bundle=bundle,
        config="inference.json",
        image_glob=images,
        label_glob=labels,
        runtime=str(runtime),
    )

    show_log()
    if ray is not None:
        from multiad_med.inference.int8 import is_int8

        # Workers that choose for themselves might choose differently.
        if runtime is RuntimeChoice.AUTO:
            card = read_card(model)
            int8 = card is not None and is_int8(card)
            chosen["runtime"] = str(RuntimeChoice.OPENVINO if int8 else RuntimeChoice.TORCH)
        _predict_by_ray(
            source, model, output=output, address=ray, device=device, bundle=bundle, **chosen
        )
        return

    from monai.utils import ensure_tuple

    from multiad_med.data import StudyError
    from multiad_med.detector import AnomalyDetector
    from multiad_med.readers.load_volume import is_dicom_path

    detector = AnomalyDetector.load(model, device=device, bundle=bundle, runtime=str(runtime))
    rows: list[tuple[str, float, float, str]] = []
    failed: list[str] = []
    example, series = "", 0
    try:
        for result in detector.predict_folder(new, output=folder, **chosen):
            first = result.source if isinstance(result.source, str) else result.source[0]
            rows.append((_name(first, new), result.score, result.p_value, result.verdict))
            example = example or _view_command(result)
            if kinds and is_dicom_path(Path(ensure_tuple(result.source)[0])):
                series += 1
                failed += _write_dicom(result, kinds)
    except StudyError as error:
        if not rows:
            raise
        failed.append(str(error))
    _print_rows(rows)
    typer.echo(f"Maps, masks and scores are in {output}.")
    if (sheet := folder / "summary.html").is_file():
        typer.echo(f"All studies at a glance: {sheet}")
    if kinds and not series:
        typer.echo("None of the studies is a DICOM series: there are no DICOM results.")
    typer.echo(f"Next: {example}")
    if failed:
        raise PartlyFailedError("\n".join(failed))


def _predict_by_ray(source: str, model: Path, *, output: str, **options: Any) -> None:
    from multiad_med.data import StudyError, StudyStatus
    from multiad_med.scale import predict_studies
    from multiad_med.utils.errors import failure_list

    rows = predict_studies(source, model, output=output, **options)
    failed = [row["message"] for row in rows if row["status"] == StudyStatus.FAILED]
    done = [row for row in rows if row["status"] != StudyStatus.FAILED]
    told = failure_list(failed, of=len(rows))
    if not done:
        raise StudyError(told)
    if len(done) <= SHOWN:
        new = Path(source)
        _print_rows(
            [(_name(r["image"], new), r["score"], r["p_value"], r["decision"]) for r in done]
        )
    typer.echo(f"Maps, masks and scores are in {output}; {output.rstrip('/')}/scores has all rows.")
    if failed:
        raise PartlyFailedError(told)


def _need_highdicom() -> None:
    from multiad_med.utils.errors import is_missing, missing_package

    if is_missing("highdicom"):
        raise missing_package("highdicom")


def _name(image: str, new: Path) -> str:
    """Return a study's path below the given folder, which tells studies of one name apart."""
    first = Path(image).absolute()
    inside = first.is_relative_to(new.absolute()) and first != new.absolute()
    return str(first.relative_to(new.absolute())) if inside else first.name


def _view_command(result: Result) -> str:
    several = not isinstance(result.source, str)
    source = str(Path(result.source[0]).parent) if several else str(result.source)
    words = ["multiad", "view", source, str(result.map_file), "-o", "VIEW"]
    return shlex.join([*words, *(["--bscans"] if result.bscans else [])])


def _write_dicom(result: Result, kinds: Collection[DicomResult]) -> list[str]:
    """Write a series' DICOM results beside its map; return why that failed, if it did."""
    import shutil

    from multiad_med.dicom.write.results import DicomKind, write_dicom_results
    from multiad_med.utils.errors import MultiADError

    source: Any = result.source if isinstance(result.source, str) else list(result.source)
    shutil.rmtree(result.folder, ignore_errors=True)
    try:
        write_dicom_results(
            source=source,
            anomaly_map=result.map_file,
            scores=result.scores,
            output_dir=result.folder,
            kinds={DicomKind(kind) for kind in kinds},
        )
    except MultiADError as error:
        return [f"No DICOM results of {result.name}: {error}"]
    return []


def _print_rows(rows: list[tuple[str, float, float, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("study", "score", "p-value", "verdict"):
        table.add_column(heading, justify="right" if heading in ("score", "p-value") else "left")
    for name, score, p_value, verdict in rows:
        table.add_row(name, f"{score:.3f}", f"{p_value:.3f}", verdict)
    Console().print(table)
