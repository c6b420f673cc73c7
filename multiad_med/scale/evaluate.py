"""``multiad evaluate --ray``: studies are read and mapped by Ray, and measured in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiad_med.data import FailureKind, is_slice_cache
from multiad_med.data.joined_slices import slice_caches
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.resources import bundle_workflow, run_workflow
from multiad_med.scale.cluster import LOCAL, ray_cluster, workers_for
from multiad_med.scale.pipeline import run_stages
from multiad_med.scale.predict import LOST, mapping_stages
from multiad_med.scale.sources import list_studies
from multiad_med.scale.stages import MadeMaps, MappedStudies, StudyRun
from multiad_med.scale.travelling_study import TravellingStudy, failed_content, studies_of
from multiad_med.utils.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["evaluate_studies"]

CONFIG = "evaluate.json"


def evaluate_studies(
    data: str | Path,
    model: str | Path,
    output: str | Path,
    *,
    bundle: str,
    address: str = LOCAL,
    device: str = "auto",
    actors: int | None = None,
    **settings: Any,
) -> None:
    """Evaluate a trained model on labelled studies, with the report of an evaluation without Ray.

    Args:
        data: folder or datalist of studies with lesion masks.
        model: ``model.pt`` of a finished training.
        output: folder of the report.
        bundle: of the model.
        address: see :func:`multiad_med.scale.cluster.ray_cluster`.
        device: of the actors: ``cpu``, ``cuda``, or ``auto``.
        actors: see :func:`multiad_med.scale.predict_studies`.
        settings: ids of the bundle's ``evaluate.json``, such as ``label_glob``.

    Raises:
        InputError: on prepared slices, or as of :func:`multiad_med.scale.predict_studies`.
        StudyError: when studies failed; the report is of the others.
    """
    if is_slice_cache(data) or slice_caches(data):
        raise InputError(
            f"--ray: {data} holds prepared slices, which need no reading. Evaluate them without --ray."
        )
    data, model, output = (Path(path).absolute() for path in (data, model, output))
    predictor = StudyPredictor(model, bundle=bundle, device="cpu", file=CONFIG, **settings)
    listed = list_studies(str(data), predictor, output=output)
    run = StudyRun.of(predictor, source=listed.source, output=output)
    studies = run.travelling(listed.studies)
    workflow = bundle_workflow(
        bundle,
        CONFIG,
        workflow_type="infer",
        dataset_dir=str(data),
        ckpt_path=str(model),
        output_dir=str(output),
        device="cpu",
        **settings,
    )
    with ray_cluster(address):
        workers = workers_for(device, actors)
        stages = mapping_stages(run, workers, predictor, count=len(studies))
        mapped = _each(run_stages(studies, stages), studies)
        workflow.parser["dataset"] = {
            "_target_": f"{MappedStudies.__module__}.{MappedStudies.__name__}",
            "items": "$@datalist[@split]",
            "studies": mapped,
            "results": "@results",
        }
        workflow.parser["inferer"] = {
            "_target_": f"{MadeMaps.__module__}.{MadeMaps.__name__}",
            "dataset": "@dataset",
        }
        run_workflow(workflow)


def _each(
    tables: Iterable[pa.Table], studies: Sequence[TravellingStudy]
) -> Iterator[TravellingStudy]:
    """Yield every study of a run in order, with what became of it."""
    place = 0
    for study in (study for table in tables for study in studies_of(table)):
        yield from _lost(studies[place : study.index])
        place = study.index + 1
        yield study
    yield from _lost(studies[place:])


def _lost(studies: Sequence[TravellingStudy]) -> Iterator[TravellingStudy]:
    for study in studies:
        message = f"{study.image}: {LOST}"
        yield replace(study, content=failed_content(message, FailureKind.SYSTEM))
