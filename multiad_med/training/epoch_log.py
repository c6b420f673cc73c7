"""What the log says during a training: how long it takes, and its losses."""

from __future__ import annotations

import logging
import time

from ignite.engine import Engine, Events

__all__ = ["EpochLog"]

_logger = logging.getLogger(__name__)

_UNTIMED = 2
_TIMED = 10
"""Steps left out, since the first ones are slower, and steps timed."""


class EpochLog:
    """Logs how long a training takes after its first steps, and losses after each validation.

    MONAI's ``StatsHandler`` writes four lines for each epoch, and the trace of every error a second
    time. Attach it after what validates.

    Args:
        evaluator: validates on held-out normal images.
    """

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator = evaluator
        self.validated = False
        self.steps = 0
        self.since = 0.0

    def attach(self, engine: Engine) -> None:
        """Register for the start, every step, the end of every epoch and of every validation."""
        self.evaluator.add_event_handler(Events.COMPLETED, self._mark)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._estimate)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _mark(self, evaluator: Engine) -> None:
        self.validated = True

    def _start(self, engine: Engine) -> None:
        self.steps = 0

    def _estimate(self, engine: Engine) -> None:
        """Log the remaining time once, when enough steps have been timed."""
        self.steps += 1
        if self.steps == _UNTIMED:
            self.since = time.monotonic()
        elif self.steps == _UNTIMED + _TIMED:
            total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
            left = total - engine.state.iteration
            seconds = (time.monotonic() - self.since) / _TIMED * left
            _logger.info("training: %s (%d steps)", _in_words(seconds), total)

    def __call__(self, engine: Engine) -> None:
        """Log the line of an epoch after which there was a validation."""
        if not self.validated:
            return
        self.validated = False
        _logger.info(
            "epoch %d of %d: loss %.4f in training, %.4f on held-out images",
            engine.state.epoch,
            engine.state.max_epochs,
            engine.state.metrics["train_loss_mean"],
            self.evaluator.state.metrics["loss_distillation"],
        )


def _in_words(seconds: float) -> str:
    """Return a duration in words."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"about {minutes} minute{'s' * (minutes > 1)}"
    return f"about {round(minutes / 60)} hours"
