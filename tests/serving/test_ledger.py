"""The ledger: one worker at a time per study, nothing lost when a worker dies, the bad given up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multiad_med.serving import FoundStudy, ServingError, StudyLedger, StudyState, Worker
from tests.serving.fakes import ListedSource

A, B = FoundStudy("a", "1", "here"), FoundStudy("b", "1", "there")


class Clock:
    """A time that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> StudyLedger:
    return StudyLedger(tmp_path / "ledger.sqlite", tries=2, lease=10, clock=clock)


def states(ledger: StudyLedger) -> dict[str, int]:
    return {state: count for state, count in ledger.counts().items() if count}


def test_studies_are_taken_in_the_order_of_their_arrival_and_each_once(ledger: StudyLedger) -> None:
    assert ledger.offer([B, A, B]) == [B, A]
    assert ledger.offer([A, B]) == []
    first, second = ledger.claim(), ledger.claim()
    assert (first.study, second.study) == (B, A)
    assert ledger.claim() is None
    assert states(ledger) == {"running": 2}
    assert ledger.finish(first)
    assert ledger.finish(second, StudyState.PASSED_OVER, reason="a localiser")
    assert states(ledger) == {"done": 1, "passed_over": 1}
    assert ledger.claim() is None


def test_a_finished_study_that_changed_is_done_anew(ledger: StudyLedger) -> None:
    ledger.offer([A])
    claim = ledger.claim()
    more = FoundStudy("a", "2", "here")
    assert ledger.offer([more]) == []  # while it is at work
    assert ledger.finish(claim)
    assert ledger.offer([A]) == []
    assert ledger.offer([more]) == [more]
    again = ledger.claim()
    assert (again.study, again.tries) == (more, 1)


def test_a_dead_workers_study_is_taken_again_and_its_own_late_outcome_refused(
    ledger: StudyLedger, clock: Clock
) -> None:
    ledger.offer([A])
    dead = ledger.claim()
    clock.now += 9
    assert ledger.renew(dead)
    clock.now += 9
    assert ledger.claim() is None
    clock.now += 1
    living = ledger.claim()
    assert (living.study, living.tries) == (A, 2)
    assert not ledger.renew(dead)
    assert not ledger.finish(dead)
    assert not ledger.give_back(dead)
    assert ledger.finish(living)
    assert states(ledger) == {"done": 1}


def reasons(ledger: StudyLedger) -> list[str]:
    with ledger._transaction() as connection:
        return [row[0] for row in connection.execute("SELECT reason FROM studies ORDER BY key")]


def test_failures_wait_and_then_are_given_up_with_their_reason(
    ledger: StudyLedger, clock: Clock
) -> None:
    ledger.offer([A])
    assert ledger.fail(ledger.claim(), "1 slice is missing", delay=30) is StudyState.WAITING
    assert ledger.claim() is None
    clock.now += 30
    assert ledger.fail(ledger.claim(), "1 slice is missing", delay=30) is StudyState.FAILED
    clock.now += 1000
    assert ledger.claim() is None
    assert reasons(ledger) == ["1 slice is missing"]


def test_a_study_that_is_given_back_has_not_been_tried(ledger: StudyLedger, clock: Clock) -> None:
    ledger.offer([A])
    for _ in range(5):
        claim = ledger.claim()
        assert claim.tries == 1
        assert ledger.give_back(claim, delay=3)
        assert ledger.claim() is None
        clock.now += 3


def test_a_ledger_of_another_model_is_refused(ledger: StudyLedger) -> None:
    ledger.check_made_by({"bundle": "x", "model": "1"})
    StudyLedger(ledger.path).check_made_by({"bundle": "x", "model": "1"})
    with pytest.raises(ServingError, match=r"another model.*another output"):
        ledger.check_made_by({"bundle": "x", "model": "2"})


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not SQLite at all, but long enough to look" * 9)
    with pytest.raises(ServingError, match=r"ledger\.sqlite\b.*ledger"):
        StudyLedger(tmp_path / "ledger.sqlite")


def _work(folder: Path, process: Callable[[str], None]) -> None:
    """A worker process on 50 studies that come to no more than a file each."""
    source = ListedSource([f"study{n:02d}" for n in range(50)], folder / "pacs")

    def timed(study: object) -> list[Path]:
        name = study.image  # type: ignore[attr-defined]
        process(name)
        result = folder / f"{os.getpid()}-{name}"
        result.write_text(name)
        return [result]

    ledger = StudyLedger(folder / "ledger.sqlite", lease=1)
    Worker(ledger=ledger, source=source, process=timed, interval=0.5, retry_delay=0).run(once=True)


def test_50_studies_two_workers_one_killed_nothing_lost_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "pacs").mkdir()
    context = multiprocessing.get_context("fork")

    def hang(name: str) -> None:
        if len(list(tmp_path.glob(f"{os.getpid()}-*"))) == 7:
            (tmp_path / "hanging").write_text(name)
            time.sleep(60)
        time.sleep(0.02)

    killed = context.Process(target=_work, args=(tmp_path, hang))
    other = context.Process(target=_work, args=(tmp_path, lambda name: time.sleep(0.02)))
    killed.start()
    other.start()
    while not (tmp_path / "hanging").exists():
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(10)
    other.join(30)
    assert (killed.exitcode, other.exitcode) == (-signal.SIGKILL, 0)

    ledger = StudyLedger(tmp_path / "ledger.sqlite")
    assert states(ledger) == {"done": 50}
    stored = (tmp_path / "pacs/stored").read_text().split()
    assert sorted(stored) == [f"study{n:02d}" for n in range(50)]
    by_killed = len(list(tmp_path.glob(f"{killed.pid}-*")))
    by_other = len(list(tmp_path.glob(f"{other.pid}-*")))
    assert (by_killed, by_other) == (7, 43)
    assert (tmp_path / f"{other.pid}-{(tmp_path / 'hanging').read_text()}").is_file()
