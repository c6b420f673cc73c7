"""One line in the log per epoch of a training."""

from __future__ import annotations

import logging

from ignite.engine import Engine, Events

__all__ = ["EpochLog"]

_logger = logging.getLogger(__name__)


class EpochLog:
    """Logs the losses of each epoch, in training and on held-out images.

    MONAI's ``StatsHandler`` writes four lines for it, and the trace of every error a second time.
    Attach it after what validates.

    Args:
        evaluator: validates on held-out normal images.
    """

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator = evaluator
        self.validated = False

    def attach(self, engine: Engine) -> None:
        """Register for the end of every epoch and of every validation."""
        self.evaluator.add_event_handler(Events.COMPLETED, self._mark)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _mark(self, evaluator: Engine) -> None:
        self.validated = True

    def __call__(self, engine: Engine) -> None:
        """Log the line."""
        losses = [f"{engine.state.metrics['train_loss_mean']:.4f} in training"]
        if self.validated:
            losses.append(
                f"{self.evaluator.state.metrics['loss_distillation']:.4f} on held-out images"
            )
        self.validated = False
        _logger.info(
            "epoch %d of %d: loss %s",
            engine.state.epoch,
            engine.state.max_epochs,
            ", ".join(losses),
        )
