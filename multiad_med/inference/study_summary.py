"""What became of all studies of an output folder: for programs, spreadsheets and people."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from multiad_med.data import StudyDataset, StudyError, StudyOutcome, StudyResults, StudyStatus
from multiad_med.utils.atomic import atomic_path, write_json
from multiad_med.utils.errors import MultiADError
from multiad_med.utils.json_files import read_json

__all__ = ["StudySummaryHandler", "merged_rows", "summary_row", "write_summary"]

COLUMNS = ("image", "status", "score", "p_value", "decision", "seconds", "message", "map")

_logger = logging.getLogger(__name__)


def _earlier_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of earlier runs, if there were any."""
    if not path.is_file():
        return []
    try:
        rows = read_json(path)["studies"]
        return [{name: row.get(name) for name in COLUMNS} | {"image": row["image"]} for row in rows]
    except (MultiADError, KeyError, TypeError, AttributeError) as error:
        _logger.warning(
            "%s is not a summary (%s); it is replaced, and rows of earlier runs are lost.",
            path,
            error,
        )
        return []


def merged_rows(new: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return one row per study of a folder, the newer one; a skipped study keeps its earlier time.

    A row whose map was replaced by that of another image is dropped.

    Args:
        new: rows of this run.
        folder: with the ``summary.json`` of earlier runs, if there were any.
    """
    earlier = _earlier_rows(folder / "summary.json")

    def key(row: Mapping[str, Any]) -> Path:
        return Path(row["image"]).expanduser().resolve()

    written = {row["map"]: key(row) for row in new if row["map"]}
    rows = {key(row): dict(row) for row in earlier if written.get(row["map"], key(row)) == key(row)}
    for row in new:
        former = rows.get(key(row), {})
        rows[key(row)] = dict(row)
        if row["status"] == StudyStatus.SKIPPED and former.get("seconds") is not None:
            rows[key(row)]["seconds"] = former["seconds"]
    return list(rows.values())


def summary_row(outcome: StudyOutcome, results: StudyResults) -> dict[str, Any]:
    """Return what became of a study: the values of :data:`COLUMNS`.

    Args:
        outcome: of the study.
        results: where its files are.
    """
    failed = outcome.status is StudyStatus.FAILED
    scores = {} if failed else results.scores(outcome.image)
    anomaly_map = results.path(outcome.image, results.files[0])
    return {
        "image": results.origin(outcome.image),
        "status": str(outcome.status),
        "score": scores.get("volume_score"),
        "p_value": scores.get("volume_p_value"),
        "decision": scores.get("verdict"),
        "seconds": round(outcome.seconds, 3),
        "message": outcome.message,
        "map": None if failed else anomaly_map.relative_to(results.output_dir).as_posix(),
    }


def write_summary(new: Sequence[Mapping[str, Any]], folder: Path, *, bscans: bool) -> None:
    """Write what became of each study of an output folder.

    - ``summary.json``: under ``studies`` a row per study: image, status (see
      :class:`multiad_med.data.StudyStatus`), score, p-value, decision (``anomalous``, ``normal``, or why
      there is no verdict), seconds, message, map (from the folder); under ``counts`` how many of this run
      were done, skipped, failed.
    - ``summary.csv``: the same rows.
    - ``summary.html``: a contact sheet, see :mod:`multiad_med.visualize.contact_sheet`.

    Rows of earlier runs into the same folder stay; a newer row of the same study replaces the older.

    Args:
        new: rows of this run, see :func:`summary_row`.
        folder: of the results.
        bscans: whether the studies are OCT volumes.

    Raises:
        StudyError: when the summary cannot be written; the message lists the failures too.
    """
    counts = Counter(row["status"] for row in new)
    told = {str(status): counts[str(status)] for status in StudyStatus}
    _logger.info("%d studies: %s", len(new), ", ".join(f"{n} {s}" for s, n in told.items()))
    try:
        rows = merged_rows(new, folder)
        write_json(folder / "summary.json", {"counts": told, "studies": rows})
        with (
            atomic_path(folder / "summary.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        failures = [row["message"] for row in new if row["status"] == StudyStatus.FAILED]
        raise StudyError(
            "\n  ".join([f"The summary could not be written: {error}", *failures])
        ) from error
    _write_sheet(rows, folder / "summary.html", bscans=bscans)


def _write_sheet(rows: Sequence[Mapping[str, Any]], path: Path, *, bscans: bool) -> None:
    # Matplotlib and the viewer are needed by this alone.
    from multiad_med.visualize.contact_sheet import write_contact_sheet

    try:
        write_contact_sheet(rows, path, bscans=bscans)
    except Exception as error:  # the results and their summary are there all the same
        _logger.warning("%s could not be written: %s", path, error)


class StudySummaryHandler:
    """Writes the summary when a run ends, see :func:`write_summary`.

    Args:
        dataset: the studies that were run.
        results: where they are written to, and where the summary goes.
        bscans: whether the studies are OCT volumes, which the contact sheet shows as they stand.
    """

    def __init__(
        self, dataset: StudyDataset, results: StudyResults, *, bscans: bool = False
    ) -> None:
        self.dataset = dataset
        self.results = results
        self.bscans = bscans

    def attach(self, engine: Engine) -> None:
        """Register for the end of the run."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the summary.

        Raises:
            StudyError: when it cannot be written; the message lists the failures too.
        """
        rows = [summary_row(outcome, self.results) for outcome in self.dataset.outcomes]
        write_summary(rows, self.results.output_dir, bscans=self.bscans)
