"""How long a training is, and how often it validates: given in steps, done in whole epochs."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.engine.events import CallableEventWithFilter
from monai.handlers import ValidationHandler

from multiad_med.utils.errors import InputError

__all__ = ["PeriodicValidation", "epochs_for", "every"]


def epochs_for(steps: int, batches: int) -> int:
    """Count the whole epochs that hold a number of optimiser steps, at least one.

    Args:
        steps: that a training is to have.
        batches: of an epoch, of each process.

    Raises:
        InputError: when steps is no whole number of at least 1, or there is no batch.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps must be a whole number of at least 1, got {steps!r}.")
    if batches < 1:
        raise InputError("There is no batch to train on.")
    return -(-steps // batches)


def every(interval: int) -> CallableEventWithFilter:
    """Return the event at the end of every ``interval`` epochs, and of the last one."""

    def is_due(engine: Engine, epoch: int) -> bool:
        return epoch % interval == 0 or epoch == engine.state.max_epochs

    event: CallableEventWithFilter = Events.EPOCH_COMPLETED(event_filter=is_due)
    return event


class PeriodicValidation(ValidationHandler):
    """MONAI's ``ValidationHandler``, but always after the last epoch too.

    Its arguments are MONAI's: ``interval``, epochs from one validation to the next, and ``validator``.
    """

    def attach(self, engine: Engine) -> None:
        """Register for the end of every ``interval`` epochs, and of the last one."""
        engine.add_event_handler(every(self.interval), self)
