"""Steps become epochs; validations are spread over them, and the last epoch has one."""

from __future__ import annotations

import pytest
from ignite.engine import Engine
from monai.engines import Evaluator

from multiad_med.training import PeriodicValidation, epochs_for
from multiad_med.training.schedule import every
from multiad_med.utils.errors import InputError


@pytest.mark.parametrize(
    ("steps", "batches", "epochs"), [(1000, 4, 250), (1000, 7, 143), (1000, 1000, 1), (10, 99, 1)]
)
def test_epochs_hold_the_steps(steps: int, batches: int, epochs: int) -> None:
    assert epochs_for(steps, batches) == epochs


@pytest.mark.parametrize("steps", [0, -5, 2.5, "many", True, None])
def test_steps_that_are_none_are_refused(steps: object) -> None:
    with pytest.raises(InputError, match="steps must be a whole number of at least 1, got"):
        epochs_for(steps, 4)  # type: ignore[arg-type]


def test_what_happens_every_three_epochs_happens_at_the_last_too() -> None:
    trainer, seen = Engine(lambda engine, batch: None), []
    trainer.add_event_handler(every(3), lambda engine: seen.append(engine.state.epoch))
    trainer.run([0], max_epochs=8)
    assert seen == [3, 6, 8]


def test_the_last_epoch_is_validated() -> None:
    class Validator(Evaluator):
        def __init__(self) -> None:
            self.epochs: list[int] = []

        def run(self, global_epoch: int = 1) -> None:
            self.epochs.append(global_epoch)

    trainer, validator = Engine(lambda engine, batch: None), Validator()
    PeriodicValidation(2, validator).attach(trainer)
    trainer.run([0], max_epochs=5)
    assert validator.epochs == [2, 4, 5]
