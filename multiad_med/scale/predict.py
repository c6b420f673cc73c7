"""``multiad predict --ray``: an archive's studies over the cores and GPUs of a machine or a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from multiad_med.data.study_results import OVERLAY, VIEWER, beside_map
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.inference.runtime import Runtime
from multiad_med.inference.study_summary import COLUMNS, merged_rows, write_summary
from multiad_med.preparation.sources import StudyKind
from multiad_med.scale.cluster import LOCAL, Workers, ray_cluster, workers_for
from multiad_med.scale.drawing import draw_worst
from multiad_med.scale.fetch import is_uri, private_folder
from multiad_med.scale.pipeline import Stages, run_stages
from multiad_med.scale.score_files import FOLDER as SCORE_FILES
from multiad_med.scale.score_files import ScoreFiles
from multiad_med.scale.sources import list_studies
from multiad_med.scale.stages import MapStudies, ReadStudies, StudyRun, WriteStudies
from multiad_med.scale.travelling_study import TravellingStudy, failed_row
from multiad_med.utils.errors import InputError
from multiad_med.visualize.contact_sheet import SHOWN, VIEWERS, worst_first

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LOST", "collected", "mapping_stages", "mark_repeats", "predict_studies"]

_VOLUMES = 2  # in one batch; each has more slices than a batch of the network
LOST = (
    "its worker was ended several times, as happens when memory runs out, or the file or a fault of the "
    "program ends it. Run again: finished studies are not done again."
)


def predict_studies(
    source: str | Path,
    model: str | Path,
    *,
    output: str | Path,
    address: str = LOCAL,
    device: str = "auto",
    bundle: str | None = None,
    actors: int | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Map and score studies by Ray, with the results of a run over a folder.

    Beside these, ``scores/*.parquet`` has a row a study. A study that fails stops no other, a worker that
    is killed is replaced and its studies are done again, and studies that are done already are not done
    again. All machines of a cluster must see under the same paths what is no address.

    Args:
        source: see :func:`multiad_med.scale.sources.list_studies`.
        model: ``model.pt`` of a finished training.
        output: of the results: a folder, or an address that fsspec writes to, such as
            ``s3://bucket/maps``.
        address: see :func:`multiad_med.scale.cluster.ray_cluster`.
        device: ``cpu``, ``cuda``, or ``auto``: GPUs, where the cluster has some.
        bundle: of a model whose card does not name it.
        actors: processes that hold the network; one per GPU or, without any, per core, if none.
        settings: ids of the bundle's ``inference.json``.

    Returns:
        A row per study, in order, as in ``summary.json``.

    Raises:
        InputError: when Ray cannot be had, or a setting, the source or the output is not as it must be.
        DatalistError: when there is no study.
        StudyError: when the summary cannot be written.
    """
    model = Path(model).absolute()
    output = str(output).rstrip("/") if is_uri(str(output)) else Path(output).absolute()
    source = str(Path(source).absolute()) if "://" not in str(source) else str(source)
    predictor = StudyPredictor(model, bundle=bundle, device="cpu", **settings)
    listed = list_studies(source, predictor, output=output)
    run = StudyRun.of(predictor, source=listed.source, output=output)
    studies = run.travelling(listed.studies)
    mark_repeats(studies)
    bscans = predictor.kind is StudyKind.OCT
    try:
        if run.storage:
            private_folder(run.fetch_dir)
            run.storage.check()
        with ray_cluster(address):
            workers = workers_for(device, actors)
            stages = mapping_stages(run, workers, predictor, count=len(studies))
            tables = run_stages(studies, replace(stages, write=WriteStudies(run)))
            rows = collected(tables, studies, run.output_dir)
            summary = [{name: row.get(name) for name in COLUMNS} for row in rows]
            draw_worst(summary, studies, run, bscans=bscans)
        _write_summary(summary, run, bscans=bscans)
    finally:
        shutil.rmtree(run.fetch_dir, ignore_errors=True)  # all that is worth keeping was sent
    return summary


def mark_repeats(studies: Sequence[TravellingStudy]) -> None:
    """Mark studies of an image that an earlier one has: two workers would write the same files."""
    first: dict[str, int] = {}
    for study in studies:
        before = first.setdefault(study.image, study.index)
        study.repeats = None if before == study.index else before


def _write_summary(rows: Sequence[Mapping[str, Any]], run: StudyRun, *, bscans: bool) -> None:
    """Write the summary, with the rows and images of earlier runs; send it and the scores, if need be."""
    folder, storage = run.output_dir, run.storage
    if storage:
        storage.fetch(folder / "summary.json")
        for place, row in enumerate(worst_first(merged_rows(rows, folder))[:SHOWN]):
            ends = (OVERLAY, VIEWER) if place < VIEWERS else (OVERLAY,)
            storage.fetch(*(beside_map(folder / row["map"], end) for end in ends))
    write_summary(rows, folder, bscans=bscans)
    if storage:
        storage.remove_folder(folder / SCORE_FILES)
        storage.send(*sorted((folder / SCORE_FILES).iterdir()), *sorted(folder.glob("summary.*")))


def mapping_stages(
    run: StudyRun, workers: Workers, predictor: StudyPredictor, *, count: int
) -> Stages:
    """Return the stages from files to maps.

    Args:
        run: what all workers know.
        workers: that hold the network.
        predictor: that the workers make again.
        count: of the studies.

    Raises:
        InputError: when the run-time is one of processors, and the workers have GPUs.
    """
    runtime = run.config["mapper"].name
    if workers.gpus and runtime != Runtime.TORCH:
        raise InputError(
            f"--runtime {runtime}: it runs on processors, and the Ray cluster gives GPUs. Choose "
            "--device cpu, or --runtime torch."
        )
    batch = _VOLUMES if run.kind else int(run.part("sw_batch_size"))
    return Stages(
        read=ReadStudies(run),
        network=MapStudies,
        network_arguments={**predictor.arguments, "device": workers.device},
        per_task=max(1, min(batch, -(-count // workers.count))),
        actors=workers.count,
        gpus=workers.gpus,
    )


def collected(
    tables: Iterator[pa.Table], studies: Sequence[TravellingStudy], output: Path
) -> list[dict[str, Any]]:
    """Return a row per study, in order, and write them to Parquet as they come."""
    rows: list[dict[str, Any] | None] = [None] * len(studies)
    files = ScoreFiles(output)
    with tqdm(total=len(studies), desc="studies", unit="study") as progress:
        for table in tables:
            for row in table.to_pylist():
                rows[row["index"]] = row
                files.add(row)
            progress.update(table.num_rows)
    for study in studies:
        if rows[study.index] is None:
            row = failed_row(study, f"{study.image}: {LOST}")
            rows[study.index] = row
            files.add(row)
    files.close()
    return [row for row in rows if row is not None]
