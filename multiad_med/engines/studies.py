"""Runs over whole studies: one that fails stops no other, and all are told of at the end."""

from __future__ import annotations

import csv
from collections import Counter
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator

from multiad_med.data import StudyDataset, StudyError, StudyOutcome, StudyStatus, study_errors
from multiad_med.io import StudyResults, atomic_path, write_json

__all__ = ["StudyEvaluator", "StudyFailureHandler", "StudySummaryHandler"]

COLUMNS = ("image", "status", "score", "decision", "seconds", "message")


class StudyEvaluator(SupervisedEvaluator):
    """MONAI's evaluator over a :class:`multiad_med.data.StudyDataset`, one study at a time.

    A study for which inference, postprocessing or writing fails is passed over, as one that cannot
    be read is; batch and output of its iteration are then empty lists.
    """

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        dataset: StudyDataset = self.data_loader.dataset  # type: ignore[union-attr, assignment]
        try:
            with study_errors(dataset.item):
                return super()._iteration(engine, batchdata)
        except StudyError as error:
            dataset.fail(error)
        engine.state.batch, engine.state.output = [], []
        return engine.state.output


class StudySummaryHandler:
    """Writes what became of each study as ``summary.json`` and ``summary.csv`` when a run ends.

    Per study: image, status (see :class:`multiad_med.data.StudyStatus`), score, decision (whether
    the score reaches the threshold: ``anomalous`` or ``normal``), seconds, message.

    Args:
        dataset: the studies that were run.
        results: where they are written to, and where the summary goes.
    """

    def __init__(self, dataset: StudyDataset, results: StudyResults) -> None:
        self.dataset = dataset
        self.results = results

    def attach(self, engine: Engine) -> None:
        """Register for the end of the run."""
        engine.add_event_handler(Events.COMPLETED, self)

    def _row(self, outcome: StudyOutcome) -> dict[str, Any]:
        failed = outcome.status is StudyStatus.FAILED
        scores = {} if failed else self.results.scores(outcome.image)
        flagged = scores.get("volume_flagged")
        return {
            "image": outcome.image,
            "status": str(outcome.status),
            "score": scores.get("volume_score"),
            "decision": None if flagged is None else "anomalous" if flagged else "normal",
            "seconds": round(outcome.seconds, 3),
            "message": outcome.message,
        }

    def __call__(self, engine: Engine) -> None:
        """Write the summary.

        Raises:
            StudyError: when it cannot be written; the message tells the failures too.
        """
        outcomes, folder = self.dataset.outcomes, self.results.output_dir
        counts = Counter(str(outcome.status) for outcome in outcomes)
        told = {str(status): counts[str(status)] for status in StudyStatus}
        rows = [self._row(outcome) for outcome in outcomes]
        engine.logger.info(
            "%d studies: %s", len(outcomes), ", ".join(f"{n} {s}" for s, n in told.items())
        )
        try:
            write_json(folder / "summary.json", {"counts": told, "studies": rows})
            with (
                atomic_path(folder / "summary.csv") as temporary,
                temporary.open("w", newline="", encoding="utf-8") as stream,
            ):
                writer = csv.DictWriter(stream, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
        except OSError as error:
            raise StudyError(
                "\n  ".join([f"The summary could not be written: {error}", *self.dataset.failures])
            ) from error


class StudyFailureHandler:
    """Ends a run over studies with an error if some failed, so that its exit status is not zero.

    Args:
        dataset: the studies that were run.
    """

    def __init__(self, dataset: StudyDataset) -> None:
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register for the end of the run."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Do nothing if all studies are done.

        Raises:
            StudyError: when at least one failed; the message lists them.
        """
        total, failures = len(self.dataset.data), self.dataset.failures
        if failures:
            raise StudyError(
                f"{len(failures)} of {total} studies failed:\n  " + "\n  ".join(failures)
            )
