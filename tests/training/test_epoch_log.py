"""What the log says in the course of a training."""

from __future__ import annotations

import logging
import re

import pytest
from ignite.engine import Engine, Events

from multiad_med.training import EpochLog
from multiad_med.training import epoch_log as module


def run(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    epochs: int,
    seconds: float,
    validated: tuple[int, ...] = (),
    resumed: int = 0,
) -> list[str]:
    """The lines of a training of epochs of 5 steps, each of which takes so many seconds."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def step(engine: Engine, batch: int) -> None:
        clock[0] += seconds

    trainer, evaluator = Engine(step), Engine(lambda engine, batch: None)

    def validate(engine: Engine) -> None:
        engine.state.metrics["train_loss_mean"] = 0.5
        if engine.state.epoch in validated:
            evaluator.run([0])
            evaluator.state.metrics["loss_distillation"] = 0.25

    def resume(engine: Engine) -> None:
        engine.state.epoch, engine.state.iteration = resumed, 5 * resumed

    trainer.add_event_handler(Events.STARTED, resume)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    EpochLog(evaluator).attach(trainer)
    with caplog.at_level(logging.INFO):
        trainer.run(range(5), max_epochs=epochs)
    return [record.message for record in caplog.records if record.name == module.__name__]


@pytest.mark.parametrize(
    ("epochs", "seconds", "told"),
    [
        (100, 0.75, r"\b6 minutes\b.*\b500 steps"),  # 488 steps are left: 366 s
        (100, 0.125, r"\b1 minute\b.*\b500 steps"),
        (100, 0.03, r"less than a minute\b.*\b500 steps"),
        (4000, 0.75, r"\b4 hours\b.*\b20000 steps"),  # 14991 s
    ],
)
def test_the_time_is_told_after_the_first_steps(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    epochs: int,
    seconds: float,
    told: str,
) -> None:
    (line,) = run(monkeypatch, caplog, epochs=epochs, seconds=seconds)
    assert re.search(told, line)


def test_a_resumed_training_tells_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = run(monkeypatch, caplog, epochs=100, seconds=0.75, resumed=50)
    assert re.search(r"\b3 minutes\b.*\b500 steps", line)  # 238 steps: 178.5 s


def test_epochs_with_a_validation_have_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = run(monkeypatch, caplog, epochs=2, seconds=1, validated=(2,))
    assert re.search(r"\bepoch 2 of 2\b.*\b0\.5000\b.*training\b.*\b0\.2500\b.*held-out", line)
