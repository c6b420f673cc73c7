"""``multiad serve``: the service itself, and what became of its studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.choices import Runtime as RuntimeChoice
from multiad_med.cli.choices import ServedResult
from multiad_med.cli.commands import DefaultCommands, PartlyFailedError, new_app
from multiad_med.cli.options import (
    Bundle,
    Device,
    Model,
    Runtime,
    Settings,
    check_device,
    check_model,
    output_option,
)

EXAMPLE = "Example: multiad serve /data/incoming -m run/model.pt -o /var/lib/multiad/brain"

app = new_app(
    cls=DefaultCommands,
    help="Process what arrives in a folder or a PACS, and bring the results back.\n\n"
    "`multiad serve SOURCE -m MODEL -o OUTPUT` is short for `multiad serve run`.",
    epilog=EXAMPLE,
)

Output = Annotated[Path, typer.Argument(help="The --output of a service.")]


@app.command(epilog=EXAMPLE, no_args_is_help=True)
def run(
    source: Annotated[
        str, typer.Argument(help="A folder of volumes or images, or a DICOMweb server.")
    ],
    model: Model,
    output: Annotated[Path, output_option("Folder for results and the ledger of studies.")],
    kinds: Annotated[
        list[ServedResult] | None,
        typer.Option(
            "--kind", help="DICOM results of volumes, seg and sr by default. Repeat it for several."
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="NAME=VALUE",
            help="What series on a DICOMweb server must have (QIDO). Repeat it for several.",
        ),
    ] = None,
    settings: Settings = None,
    settle: Annotated[
        float, typer.Option(help="After how many seconds without change a study is complete.")
    ] = 30,
    interval: Annotated[float, typer.Option(help="Seconds between looks at the source.")] = 10,
    tries: Annotated[int, typer.Option(help="How many tries until a study is given up.")] = 3,
    lease: Annotated[
        float, typer.Option(help="After how many seconds the study of a dead worker is free.")
    ] = 60,
    limit: Annotated[float, typer.Option(help="How many seconds a study may take.")] = 3600,
    host: Annotated[str, typer.Option(help="Address of the health endpoint.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the health endpoint; 0 is any.")] = 8050,
    once: Annotated[
        bool,
        typer.Option("--once", help="End when all is done, with status 1 if studies failed."),
    ] = False,
    device: Device = "auto",
    runtime: Runtime = RuntimeChoice.AUTO,
    bundle: Bundle = None,
) -> None:
    """Process what arrives in a folder or a PACS, and bring the results back (docs/pacs.md)."""
    check_model(model)
    check_device(device)

    from multiad_med.serving.service import dicom_kinds
    from multiad_med.serving.service import serve as run_service
    from multiad_med.serving.service_errors import ServingError

    try:
        run_service(
            source,
            bundle=bundle,
            model=model,
            output=output,
            kinds=dicom_kinds([str(kind) for kind in kinds]) if kinds else None,
            filters=filters or [],
            settings=settings or [],
            settle=settle,
            interval=interval,
            tries=tries,
            lease=lease,
            limit=limit,
            host=host,
            port=port,
            device=device,
            runtime=str(runtime),
            once=once,
        )
    except ServingError as error:
        if once and _any_failed(output):
            raise PartlyFailedError(str(error)) from error
        raise


@app.command(epilog="Example: multiad serve status /var/lib/multiad/brain", no_args_is_help=True)
def status(output: Output) -> None:
    """Say what became of the studies of a service, and why some failed."""
    from multiad_med.serving.status import ledger_status

    typer.echo(ledger_status(output))


@app.command(epilog="Example: multiad serve retry /var/lib/multiad/brain", no_args_is_help=True)
def retry(
    output: Output,
    studies: Annotated[
        list[str] | None, typer.Argument(help="Studies that failed; all of them by default.")
    ] = None,
) -> None:
    """Let studies that failed be tried again."""
    from multiad_med.serving.status import retry as try_again

    typer.echo(f"{try_again(output, studies or [])} studies will be tried again.")


def _any_failed(output: Path) -> bool:
    """Return whether a service's ledger has studies that were given up."""
    from multiad_med.serving.ledger import StudyLedger, StudyState

    ledger = output.expanduser() / "ledger.sqlite"
    return ledger.is_file() and StudyLedger(ledger).counts()[StudyState.FAILED] > 0
