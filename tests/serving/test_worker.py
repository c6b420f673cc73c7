"""The worker: a bad study stops nothing, a PACS that is away fails nothing, signals lose nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from multiad_med.data import StudyError
from multiad_med.serving import (
    FetchedStudy,
    FoundStudies,
    FoundStudy,
    PassedOver,
    PassedOverError,
    ServingError,
    SourceUnavailableError,
    StudyLedger,
)
from multiad_med.serving.json_log import JsonLineFormatter, study_hash
from tests.serving.fakes import ListedSource, stored, worker, write
from tests.serving.test_ledger import reasons, states


def test_a_bad_study_is_given_up_with_its_reason_and_the_others_are_done(
    ledger: StudyLedger, tmp_path: Path
) -> None:
    seen = []

    def process(study: FetchedStudy) -> Sequence[Path]:
        seen.append(study.image)
        if study.image == "bad":
            raise StudyError("bad: 1 slice(s) are missing")
        if study.image == "scout":
            raise PassedOverError(PassedOver.NOT_A_VOLUME, "a localiser")
        return write(tmp_path, study)

    source = ListedSource(["bad", "good", "scout", "well"], tmp_path)
    worker(ledger, source, process).run(once=True)
    assert states(ledger) == {"done": 2, "passed_over": 1, "failed": 1}
    assert reasons(ledger) == ["bad: 1 slice(s) are missing", "", "no volume: a localiser", ""]
    assert stored(tmp_path) == ["good", "well"]
    assert seen.count("bad") == 1  # another try would fail too
    assert set(source.released) == {"bad", "good", "scout", "well"}
    worker(ledger, source, process).run(once=True)  # finds nothing to do
    assert len(seen) == 4


def test_a_study_that_kills_its_workers_is_given_up_told_and_released(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = StudyLedger(tmp_path / "ledger.sqlite", tries=2, lease=0.05)
    source = ListedSource(["a"], tmp_path)
    ledger.offer(source.find().studies)
    for _ in range(2):  # workers that die
        assert ledger.claim() is not None
        time.sleep(0.1)
    caplog.set_level(logging.INFO)
    worker(ledger, source).run(once=True)
    assert states(ledger) == {"failed": 1}
    reason = "The worker died, 2 times, while it was at this study."
    assert reasons(ledger) == [reason]
    assert source.released == ["a"]
    assert not (tmp_path / "stored").exists()
    (over,) = (record.fields for record in caplog.records if record.getMessage() == "over")
    assert (over["state"], over["reason"]) == ("failed", reason)


@pytest.mark.parametrize(
    "error",
    [
        SourceUnavailableError("away"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        StudyError(f"x.nii.gz: {os.strerror(errno.ENOSPC)}. Free some space and run again."),
        sqlite3.OperationalError("database is locked"),
    ],
)
def test_a_pacs_that_is_away_or_a_full_disk_is_no_try_of_the_study(
    ledger: StudyLedger, tmp_path: Path, error: Exception
) -> None:
    failures = 5

    class Flaky(ListedSource):
        def store(self, files: Sequence[Path]) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise error
            super().store(files)

    worker(ledger, Flaky(["a"], tmp_path)).run(once=True)
    assert states(ledger) == {"done": 1}
    assert stored(tmp_path) == ["a"]


def test_a_source_that_does_not_answer_is_waited_for(ledger: StudyLedger, tmp_path: Path) -> None:
    class Away(ListedSource):
        answers = False

        def find(self) -> FoundStudies:
            if not self.answers:
                raise SourceUnavailableError("http://pacs does not answer")
            return super().find()

    source = Away(["a"], tmp_path)
    with pytest.raises(ServingError, match="does not answer"):
        worker(ledger, source).run(once=True)
    running = worker(ledger, source)
    thread = threading.Thread(target=running.run)
    thread.start()
    while "reason" not in (ready := running.ready())[1]:
        time.sleep(0.01)
    source.answers = True
    while states(ledger) != {"done": 1}:
        time.sleep(0.05)
    reason = {"reason": "http://pacs does not answer"}
    assert ready == (False, {"source": False, "stopping": False, **reason})
    assert running.ready() == (True, {"source": True, "stopping": False})
    assert running.health()[1]["studies"]["done"] == 1
    running.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_the_lease_is_kept_while_a_study_is_at_work_and_a_lost_one_stores_nothing(
    tmp_path: Path,
) -> None:
    ledger = StudyLedger(tmp_path / "ledger.sqlite", lease=1)

    def slow(study: FetchedStudy) -> list[Path]:
        time.sleep(2)
        assert ledger.claim() is None
        return write(tmp_path, study)

    worker(ledger, ListedSource(["a"], tmp_path), slow).run(once=True)
    assert stored(tmp_path) == ["a"]

    def asleep(study: FetchedStudy) -> list[Path]:
        with ledger._transaction() as connection:  # as if the lease had run out meanwhile
            connection.execute("UPDATE studies SET token = 'of another worker'")
        return write(tmp_path, study)

    source = ListedSource(["b"], tmp_path)
    ledger.offer(source.find().studies)
    worker(ledger, source, asleep)._work(ledger.claim())
    assert stored(tmp_path) == ["a"]
    assert source.released == []  # what the other worker is at


def test_the_first_signal_lets_the_study_be_finished_and_the_second_gives_it_back(
    ledger: StudyLedger, tmp_path: Path
) -> None:
    def signals(count: int) -> Any:
        def process(study: FetchedStudy) -> list[Path]:
            for _ in range(count):
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            return write(tmp_path, study)

        return process

    source = ListedSource(["a", "b", "c"], tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    try:
        for count in (1, 2):
            running = worker(ledger, source, signals(count))
            signal.signal(signal.SIGTERM, lambda *_, running=running: running.stop())
            running.run()
            assert states(ledger) == {"done": 1, "waiting": 2}
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stored(tmp_path) == ["a"]
    worker(ledger, source).run(once=True)
    assert stored(tmp_path) == ["a", "b", "c"]


def test_the_log_has_hashes_and_no_names(
    ledger: StudyLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "Doe^Jane-4711"

    def process(study: FetchedStudy) -> list[Path]:
        logging.getLogger("some.reader").warning("cannot read %s", name)
        raise StudyError(f"{name}: 1 slice(s) are missing")

    caplog.set_level(logging.INFO)
    worker(ledger, ListedSource([name], tmp_path), process).run(once=True)
    formatter = JsonLineFormatter({"worker": "w1"})
    lines = [formatter.format(record) for record in caplog.records]
    assert name in caplog.text  # or else the test would show nothing
    assert not [line for line in lines if "Doe" in line or "4711" in line]
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events] == [
        *("found", "begun", "other", "over", "stopped"),
    ]
    assert {e["worker"] for e in events} == {"w1"}
    assert {e["study"] for e in events if "study" in e} == {study_hash(name)}
    assert events[-2]["state"] == "failed"
    assert "cannot be read" in events[-2]["reason"]
    assert not events[-2].keys() & {"error", "trace"}


def test_once_ends_when_the_source_answers_searches_only(
    ledger: StudyLedger, tmp_path: Path
) -> None:
    class Half(ListedSource):
        def fetch(self, study: FoundStudy) -> FetchedStudy:
            raise SourceUnavailableError("The DICOMweb server: HTTP status 503.")

    with pytest.raises(ServingError, match=r"\b10 times.*HTTP status 503"):
        worker(ledger, Half(["a", "b"], tmp_path)).run(once=True)
    assert states(ledger) == {"waiting": 2}
    tries = sqlite3.connect(ledger.path).execute("SELECT tries FROM studies").fetchall()
    assert tries == [(0,), (0,)]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/of/Doe"), "The disk is full"),
        (sqlite3.OperationalError("database is locked"), "ledger cannot be used: .* locked"),
    ],
)
def test_once_ends_when_the_disk_stays_full_or_the_ledger_locked(
    ledger: StudyLedger, tmp_path: Path, error: Exception, message: str
) -> None:
    def process(study: FetchedStudy) -> list[Path]:
        raise error

    with pytest.raises(ServingError, match=message) as told:
        worker(ledger, ListedSource(["a"], tmp_path), process).run(once=True)
    assert "Doe" not in str(told.value)


@pytest.mark.slow
def test_once_ends_when_the_ledger_itself_cannot_be_written(
    ledger: StudyLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(StudyLedger, "claim", locked)
    with pytest.raises(ServingError, match="ledger cannot be used"):
        worker(ledger, ListedSource(["a"], tmp_path)).run(once=True)


def test_series_without_a_name_are_told_and_end_once_with_an_error(
    ledger: StudyLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Nameless(ListedSource):
        def find(self) -> FoundStudies:
            return FoundStudies(super().find().studies, nameless=2)

    caplog.set_level(logging.INFO)
    with pytest.raises(ServingError, match=r"\b2 series\b.*SeriesInstanceUID"):
        worker(ledger, Nameless(["a"], tmp_path)).run(once=True)
    assert stored(tmp_path) == ["a"]
    told = [record.fields for record in caplog.records if record.getMessage() == "nameless"]
    assert [fields["count"] for fields in told] == [2]  # once, not at each look


def test_what_is_passed_over_is_told_once_and_counted_in_the_last_line(
    ledger: StudyLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask, note = FoundStudy("Doe_seg.nii.gz", "", ""), FoundStudy("Doe.txt", "", "")

    class WithMask(ListedSource):
        def find(self) -> FoundStudies:
            others = [(mask, PassedOver.MASK), (note, PassedOver.NOT_AN_IMAGE)]
            return FoundStudies(super().find().studies, passed_over=others)

    def process(study: FetchedStudy) -> list[Path]:
        if study.image == "scout":
            raise PassedOverError(PassedOver.NOT_A_VOLUME, "a localiser of Doe")
        time.sleep(0.15)  # the source is looked at again
        return write(tmp_path, study)

    caplog.set_level(logging.INFO)
    worker(ledger, WithMask(["a", "scout", "b"], tmp_path), process).run(once=True)
    told = [r.fields for r in caplog.records if r.getMessage() == "passed_over"]
    assert told == [
        {"study": study_hash("Doe_seg.nii.gz"), "reason": "a mask by its name"},
        {"study": study_hash("Doe.txt"), "reason": "not an image"},
    ]
    last = caplog.records[-1]
    assert last.getMessage() == "stopped"
    assert last.fields["studies"]["done"] == 2
    assert last.fields["passed_over"] == {
        **{"not an image": 1, "a mask by its name": 1, "no volume": 1}
    }
    lines = [JsonLineFormatter({}).format(record) for record in caplog.records]
    assert not [line for line in lines if "Doe" in line]


def test_a_fault_of_the_program_is_tried_again_and_has_its_place_in_the_log(
    ledger: StudyLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def process(study: FetchedStudy) -> list[Path]:
        raise TypeError("cannot add Doe and 1")

    caplog.set_level(logging.INFO)
    worker(ledger, ListedSource(["a"], tmp_path), process).run(once=True)
    overs = [r.fields for r in caplog.records if r.getMessage() == "over"]
    assert [fields["state"] for fields in overs] == ["waiting", "failed"]
    assert overs[0]["reason"].startswith("A fault of the program")
    assert "test_worker.py" in overs[0]["trace"][-1]
    assert "Doe" not in str(overs)
    assert reasons(ledger) == ["a fault of the program: cannot add Doe and 1"]


def test_the_log_has_the_reason_why_a_source_is_away(
    ledger: StudyLedger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(ListedSource):
        def find(self) -> FoundStudies:
            raise SourceUnavailableError("HTTP status 401: it wants other credentials.")

    with pytest.raises(ServingError, match="status 401"):
        worker(ledger, Away([], tmp_path)).run(once=True)
    (record,) = (r for r in caplog.records if r.getMessage() == "source_unavailable")
    assert record.fields["reason"] == "HTTP status 401: it wants other credentials."
