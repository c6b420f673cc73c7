"""Runs over whole studies: one that fails stops no other, and all failures are listed at the end."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from multiad_med.data import StudyDataset, StudyError
from multiad_med.utils import InputError, terminable, worker_errors
from multiad_med.utils.errors import failure_list

__all__ = ["StudyEvaluator", "StudyFailureHandler"]


class StudyEvaluator(SupervisedEvaluator):
    """MONAI's evaluator over a :class:`multiad_med.data.StudyDataset`, one study at a time.

    A study that cannot be read, or whose inference, postprocessing or writing fails, is passed over;
    batch and output of its iteration, and of one that is finished already, are empty lists. Ctrl-C and
    SIGTERM leave all files of a study or none.

    Args:
        *args: those of MONAI's ``SupervisedEvaluator``.
        **kwargs: those of MONAI's ``SupervisedEvaluator``.

    Raises:
        InputError: when the loader makes batches of several studies.
    """

    data_loader: DataLoader

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.data_loader.batch_size != 1:
            raise InputError(
                f"dataloader#batch_size must be 1, got {self.data_loader.batch_size}: studies differ in "
                "size. Slices are run together, as many as sw_batch_size says."
            )
        self.dataset: StudyDataset = self.data_loader.dataset  # type: ignore[assignment]
        self.add_event_handler(Events.STARTED, self.dataset.start)  # after the model was loaded

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Run over the studies.

        Raises:
            StudyError: when a worker that reads them was killed, or a handler stops the run.
        """
        advice = "Run again with fewer dataloader#num_workers: finished studies are not done again."
        with terminable(), worker_errors(StudyError, advice):
            super().run(global_epoch)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        with self.dataset.at_work(batchdata) as needed:
            if needed:
                return super()._iteration(engine, batchdata)
        engine.state.batch, engine.state.output = [], []
        return engine.state.output


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
            raise StudyError(failure_list(failures, of=total))
