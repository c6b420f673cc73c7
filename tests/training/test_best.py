"""The best student is kept, and training ends when nothing better comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from multiad_med.training import BestStudent


class Training:
    """A training whose validation losses are given; the student's weight is the epoch."""

    def __init__(self, losses: list[float], **kwargs: object) -> None:
        self.student = nn.Linear(1, 1, bias=False)
        self.evaluator = Engine(lambda engine, batch: None)
        self.trainer = Engine(lambda engine, batch: None)
        self.best = BestStudent(self.student, self.evaluator, **kwargs)
        self.epochs = len(losses)

        def train_and_validate(engine: Engine) -> None:
            nn.init.constant_(self.student.weight, engine.state.epoch)
            loss = losses[engine.state.epoch - 1]
            self.evaluator.add_event_handler(
                Events.EPOCH_COMPLETED,
                lambda e: e.state.metrics.update(loss_distillation=loss),
            )
            self.evaluator.run([0])

        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, train_and_validate)
        self.best.attach(self.trainer)

    def run(self) -> float:
        """The student's weight at the end."""
        self.trainer.run([0], max_epochs=self.epochs)
        return float(self.student.weight)


LOSSES = [3.0, 1.0, 2.0, 1.0, 1.5, 0.5]


def test_the_last_student_is_taken_and_the_best_written(tmp_path: Path) -> None:
    training = Training(LOSSES[:5], path=tmp_path / "best.pt")
    assert training.run() == 5
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (best["epoch"], best["loss"], float(best["student"]["weight"])) == (2, 1.0, 2)


def test_the_best_student_is_taken_when_asked(tmp_path: Path) -> None:
    assert Training(LOSSES[:5], path=tmp_path / "best.pt", select="best").run() == 2


def test_training_ends_out_of_patience(tmp_path: Path) -> None:
    training = Training(LOSSES, path=tmp_path / "best.pt", patience=3)
    assert training.run() == 5
    assert training.trainer.state.epoch == 5


def test_patience_counts_validations_not_epochs(tmp_path: Path) -> None:
    training = Training(LOSSES, path=tmp_path / "best.pt", patience=1, interval=2)
    training.run()
    assert training.trainer.state.epoch == 4  # the best is of epoch 2, one validation is 2 epochs


def test_a_training_that_had_ended_is_not_continued(tmp_path: Path) -> None:
    Training(LOSSES, path=tmp_path / "best.pt", patience=3).run()
    resumed = Training(LOSSES, path=tmp_path / "best.pt", patience=3)
    resumed.trainer.state.epoch = 5
    resumed.best.start(resumed.trainer)
    assert resumed.best.epoch == 2
    assert resumed.trainer.should_terminate


def test_a_stale_file_does_not_count_in_a_new_training(tmp_path: Path) -> None:
    Training([0.1], path=tmp_path / "best.pt").run()
    training = Training([3.0, 2.0], path=tmp_path / "best.pt")
    training.run()
    assert torch.load(tmp_path / "best.pt", weights_only=True)["loss"] == 2.0


def test_no_patience_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 validation"):
        Training(LOSSES, path=tmp_path / "best.pt", patience=0)


def test_an_unknown_selection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="select is one of"):
        Training(LOSSES, path=tmp_path / "best.pt", select="bset")
