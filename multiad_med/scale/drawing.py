"""Images of the worst studies, for the contact sheet of a run by Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import first_path
from multiad_med.data.study_results import OVERLAY, SCORES, VIEWER, beside_map
from multiad_med.scale.fetch import fetched
from multiad_med.scale.sources import ListedStudy
from multiad_med.scale.stages import StudyRun
from multiad_med.scale.travelling_study import TravellingStudy
from multiad_med.visualize.contact_sheet import (
    SHOWN,
    VIEWERS,
    draw_study,
    needs_drawing,
    worst_first,
)

__all__ = ["draw_worst"]


def draw_worst(
    rows: Sequence[Mapping[str, Any]],
    studies: Sequence[TravellingStudy],
    run: StudyRun,
    *,
    bscans: bool,
) -> None:
    """Make the images of a run's worst studies side by side; what cannot be drawn is told by the sheet.

    Args:
        rows: of the summary, one per study.
        studies: in the same order.
        run: of them.
        bscans: see :func:`multiad_med.visualize.contact_sheet.draw_study`.
    """
    import ray

    listed = {row["map"]: study.listed for row, study in zip(rows, studies, strict=True)}
    task: Any = ray.remote(num_cpus=1)
    draw, shared = task(draw_listed), ray.put(run)
    drawn = [
        draw.remote(listed[row["map"]], shared, row["map"], viewer=place < VIEWERS, bscans=bscans)
        for place, row in enumerate(worst_first(rows)[:SHOWN])
    ]
    if drawn:
        ray.wait(drawn, num_returns=len(drawn))


def draw_listed(
    study: ListedStudy, run: StudyRun, name: str, *, viewer: bool, bscans: bool
) -> None:
    """Make the missing images of one study, wherever its files and its results lie.

    Args:
        study: to be drawn.
        run: of it.
        name: of its map, from the folder of the results.
        viewer: whether it gets a viewer.
        bscans: see :func:`multiad_med.visualize.contact_sheet.draw_study`.

    Raises:
        StudyError: when a file cannot be had or sent.
    """
    anomaly_map = run.output_dir / name
    scores, *pictures = (beside_map(anomaly_map, end) for end in (SCORES, OVERLAY, VIEWER))
    with _results_here(run, *pictures):
        if not needs_drawing(anomaly_map, viewer=viewer):
            return
        with (
            _results_here(run, anomaly_map, scores),
            fetched(study, run.fetch_dir, run.kind),
        ):
            draw_study(first_path(study.item), anomaly_map, viewer=viewer, bscans=bscans)
        if run.storage:
            run.storage.send(*pictures)


@contextmanager
def _results_here(run: StudyRun, *paths: Path) -> Iterator[None]:
    """Have files of the results on this machine inside the context, those of a storage only then."""
    if run.storage is None:
        yield
        return
    run.storage.fetch(*paths)
    try:
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
