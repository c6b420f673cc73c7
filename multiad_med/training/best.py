"""The best student on held-out normal images, and early stopping."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn

from multiad_med.training.distributed import is_distributed, is_main_process
from multiad_med.utils.atomic import write_state
from multiad_med.utils.errors import InputError

__all__ = ["BestStudent", "Selection"]


_logger = logging.getLogger(__name__)


class Selection(StrEnum):
    """Which student a training ends with."""

    LAST = "last"
    """The student of the last epoch."""
    BEST = "best"
    """The student of the lowest validation loss."""


class BestStudent:
    """Keeps the student of the lowest validation loss, and stops training that no longer lowers it.

    Attach it after the handlers that resume and validate, and before calibration.

    Args:
        student: what is trained.
        evaluator: validates on held-out normal images and has ``metric`` in its state.
        path: file of the best student so far: its state dict, epoch and loss.
        metric: name of the metric; smaller is better.
        patience: validations without a lower loss after which training ends; none means never.
        interval: epochs from one validation to the next.
        select: see :class:`Selection`.

    Raises:
        InputError: on a patience of less than one validation, or an unknown selection.
    """

    def __init__(
        self,
        student: nn.Module,
        evaluator: Engine,
        path: str | Path,
        *,
        metric: str = "loss_distillation",
        patience: int | None = None,
        interval: int = 1,
        select: Selection | str = Selection.LAST,
    ) -> None:
        if patience is not None and patience < 1:
            raise InputError(f"patience must be at least 1 validation, or none, got {patience}.")
        if select not in list(Selection):
            raise InputError(f"select is one of {[str(s) for s in Selection]}, got {select!r}.")
        self.student = student
        self.evaluator = evaluator
        self.path = Path(path)
        self.metric = metric
        self.patience = patience
        self.interval = interval
        self.select = Selection(select)
        self.epoch = 0
        self.loss = float("inf")

    def attach(self, engine: Engine) -> None:
        """Register for the start and end of training and each validation."""
        engine.add_event_handler(Events.STARTED, self.start)
        self.evaluator.add_event_handler(Events.COMPLETED, self.compare, engine)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Restore the best so far where training is resumed; stop at once where it had ended."""
        if engine.state.epoch > 0 and self.path.is_file():
            about = torch.load(self.path, map_location="cpu", weights_only=True)
            self.epoch, self.loss = about["epoch"], about["loss"]
            self.stop(engine)

    def compare(self, evaluator: Engine, trainer: Engine) -> None:
        """Keep the student if it is better than all before; else stop if the patience is used up."""
        loss = float(evaluator.state.metrics[self.metric])
        if not loss < self.loss:
            self.stop(trainer)
            return
        self.epoch, self.loss = trainer.state.epoch, loss
        if is_main_process():
            state: dict[str, Any] = {
                "student": self.student.state_dict(),
                "epoch": self.epoch,
                "loss": self.loss,
            }
            write_state(self.path, state)

    def stop(self, engine: Engine) -> None:
        """End training if its patience is used up."""
        if self.patience is None:
            return
        if engine.state.epoch - self.epoch >= self.patience * self.interval:
            _logger.info(
                "no lower %s since epoch %d: training ends after epoch %d",
                self.metric,
                self.epoch,
                engine.state.epoch,
            )
            engine.terminate()

    def finish(self, engine: Engine) -> None:
        """Load the best student, if it was selected."""
        if self.select is Selection.LAST or self.epoch == 0:
            return
        if is_main_process():
            best = torch.load(self.path, map_location="cpu", weights_only=True)
            self.student.load_state_dict(best["student"])
        if is_distributed():
            for value in self.student.state_dict().values():
                dist.broadcast(value, src=0)
        _logger.info("the student of epoch %d, loss %.4g, is taken", self.epoch, self.loss)
