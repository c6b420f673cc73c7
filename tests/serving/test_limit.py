"""A study that takes too long is a failed try, even where nothing stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multiad_med.serving import FetchedStudy, StudyLedger
from tests.serving.fakes import ListedSource, stored, worker, write
from tests.serving.test_ledger import reasons, states


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timer signals")
def test_a_study_that_hangs_is_a_failed_try_and_the_others_are_done(
    ledger: StudyLedger, tmp_path: Path
) -> None:
    def process(study: FetchedStudy) -> list[Path]:
        if study.image == "hangs":
            try:
                time.sleep(100)
            except Exception:  # as code that goes on whatever happens
                time.sleep(100)
        return write(tmp_path, study)

    before = signal.getsignal(signal.SIGALRM)
    source = ListedSource(["hangs", "well"], tmp_path)
    worker(ledger, source, process, limit=0.3).run(once=True)
    assert states(ledger) == {"done": 1, "failed": 1}
    assert [reason for reason in reasons(ledger) if reason and "0.3 seconds" in reason]
    assert stored(tmp_path) == ["well"]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


HUNG = """
import sys
from pathlib import Path
from multiad_med.serving import StudyLedger, Worker, limit
from tests.serving.fakes import ListedSource

def process(study):
    while True:  # like a decoder that never comes back to Python
        try:
            while True:
                pass
        except BaseException:
            pass

limit.time_limit.__wrapped__.__kwdefaults__["grace"] = 0.5
folder = Path(sys.argv[1])
Worker(
    ledger=StudyLedger(folder / "ledger.sqlite", tries=2), source=ListedSource(["a"], folder),
    process=process, interval=0.1, retry_delay=0.0, limit=0.3,
).run(once=True)
"""


@pytest.mark.slow
def test_a_study_that_cannot_be_stopped_ends_the_process_and_counts_as_tried(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ledger = StudyLedger(tmp_path / "ledger.sqlite", tries=2)
    for state in ("waiting", "failed"):
        ended = subprocess.run(
            [sys.executable, "-c", HUNG, str(tmp_path)], env=environment, timeout=120
        )
        assert ended.returncode == 1
        assert states(ledger) == {state: 1}
    (reason,) = reasons(ledger)
    assert "0.3 seconds" in reason
