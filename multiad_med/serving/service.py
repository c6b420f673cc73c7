"""The service of ``multiad serve``: one worker with its log, health endpoint and signals."""

from __future__ import annotations

import logging
import os
import platform
import shlex
import signal
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from multiad_med.dicom.write.results import DicomKind
from multiad_med.inference.predictor import StudyPredictor, bundle_kind
from multiad_med.networks import bundle_of_model
from multiad_med.preparation.sources import StudyKind
from multiad_med.serving.dicomweb import DicomwebSource
from multiad_med.serving.failures import failure_of
from multiad_med.serving.folder import FolderSource, check_outside
from multiad_med.serving.health import HealthServer
from multiad_med.serving.json_log import log_event, log_to, trace
from multiad_med.serving.ledger import StudyLedger, StudyState
from multiad_med.serving.process import StudyProcessor
from multiad_med.serving.service_errors import ServingError
from multiad_med.serving.status import LEDGER
from multiad_med.serving.worker import Worker
from multiad_med.utils.settings import parse_pairs, parse_settings

__all__ = ["dicom_kinds", "serve"]


def dicom_kinds(names: Sequence[str] | None) -> set[DicomKind]:
    """Return kinds of DICOM results by name; by default a segmentation and a report.

    Raises:
        ServingError: on an unknown name, with the known ones.
    """
    if names is None:
        return {DicomKind.SEG, DicomKind.REPORT}
    if list(names) == ["none"]:
        return set()
    try:
        return {DicomKind(name) for name in names}
    except ValueError as error:
        raise ServingError(
            f"{error}: --kind is one of {[str(kind) for kind in DicomKind]}, or none alone."
        ) from None


def _source(
    source: str, *, kind: StudyKind | None, output: Path, filters: Mapping[str, str], settle: float
) -> FolderSource | DicomwebSource:
    """Return a folder, or a DICOMweb server by its address."""
    if source.startswith(("http://", "https://")):
        if kind is None:
            raise ServingError(
                f"{source}: the model is of images, and a DICOMweb server has volumes. Give a folder, "
                "or a model of volumes."
            )
        return DicomwebSource(
            source, kind=kind, folder=output / "spool", filters=filters, settle=settle
        )
    if filters:
        raise ServingError("--filter is for a DICOMweb source; a folder has none.")
    folder = FolderSource(source, kind=kind, settle=settle)
    check_outside(output, folder.folder)
    return folder


def serve(
    source: str,
    *,
    bundle: str | None,
    model: str | Path,
    output: str | Path,
    kinds: Collection[DicomKind] | None = None,
    filters: Sequence[str] = (),
    settings: Sequence[str] = (),
    settle: float = 30.0,
    interval: float = 10.0,
    tries: int = 3,
    lease: float = 60.0,
    limit: float = 3600.0,
    host: str = "127.0.0.1",
    port: int = 8050,
    device: str = "auto",
    runtime: str = "auto",
    once: bool = False,
) -> None:
    """Process what arrives until SIGTERM or SIGINT, after which the study at hand is finished.

    A second signal gives the study at hand back. The log goes to stderr.

    Args:
        source: folder, or address of a DICOMweb server.
        bundle: for a model whose card does not name it.
        model: ``model.pt``.
        output: folder for the ledger and ``results``. Workers with one output share the work.
        kinds: of DICOM results; without it those of :func:`dicom_kinds`, and none of images.
        filters: ``NAME=VALUE``, QIDO attributes that series must have.
        settings: ``NAME=VALUE``, ids of the bundle's config.
        settle, interval, limit: see the sources and :class:`Worker`.
        tries, lease: see :class:`StudyLedger`.
        host, port: of the health endpoint.
        device: such as ``cpu``.
        runtime: what computes the maps, see :class:`multiad_med.inference.Runtime`.
        once: end when all is done, with an error if studies failed.

    Raises:
        ServingError: when the service cannot start, or broke; the message says why.
        InputError, WeightsError, NotCalibratedError: as of :class:`StudyPredictor`.
    """
    output = Path(output).expanduser().absolute()
    log_to(worker=f"{platform.node()}:{os.getpid()}")
    overrides = parse_settings(settings)
    bundle = bundle_of_model(model, bundle)
    kind = bundle_kind(bundle)
    if kinds is None:
        kinds = dicom_kinds(None) if kind is not None else set()
    elif kind is None and kinds:
        raise ServingError(
            "--kind is of DICOM series; an image has no DICOM results. Leave it out."
        )
    studies = _source(
        source,
        kind=kind,
        output=output,
        filters=parse_pairs(filters, option="--filter"),
        settle=settle,
    )
    ledger = StudyLedger(output / LEDGER, tries=tries, lease=lease)
    checks: dict[str, Any] = {
        "/health": lambda: (True, {"studies": ledger.counts()}),
        "/ready": lambda: (False, {"model": False}),
    }
    health = HealthServer(checks, host=host, port=port)
    earlier: dict[signal.Signals, Any] = {}
    try:
        predictor = StudyPredictor(
            model, bundle=bundle, device=device, runtime=runtime, **overrides
        )
        ledger.check_made_by({**predictor.about, "source": type(studies).__name__})
        worker = Worker(
            ledger=ledger,
            source=studies,
            process=StudyProcessor(
                predictor, source=studies.folder, output_dir=output / "results", kinds=kinds
            ),
            interval=interval,
            limit=limit,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            earlier[number] = signal.signal(number, lambda *_: worker.stop())
        checks.update({"/health": worker.health, "/ready": worker.ready})
        log_event("ready", port=health.port, model=predictor.about["model"])
        _run(worker, once=once)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        health.close()
    if once and (failed := ledger.counts()[StudyState.FAILED]):
        raise ServingError(
            f"{failed} of the studies failed; the others are done. "
            f"`multiad serve status {shlex.quote(str(output))}` tells why."
        )


def _run(worker: Worker, *, once: bool) -> None:
    """Run a worker; raise its own error without the message, which may name a patient."""
    try:
        worker.run(once=once)
    except ServingError:
        raise
    except Exception as error:  # its message may name a patient
        failure = failure_of(error)
        about = {"trace": trace(error)} if failure.is_fault else {}
        log_event("broke", level=logging.CRITICAL, reason=failure.told, **about)
        raise ServingError(f"The worker broke. {failure.told}") from error
