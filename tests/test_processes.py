"""No child outlives the command that started it, however that ends; real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multiad_med.testing.brains import make_brains
from multiad_med.testing.layouts import make_brats
from multiad_med.testing.slice_caches import make_cache
from multiad_med.utils import run_in_process, terminable
from tests.processes import descendants, survivors

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")

ROOT = Path(__file__).parents[1]

# ablate runs its trainings in the same way
COMPARE = """
import sys, time
from multiad_med.benchmark.outcomes import Job, run_job
from tests.test_processes import endless

if __name__ == "__main__":
    run_job(Job("endless", endless, sys.argv[1], "", 0), sys.argv[2])
"""

PREPARE = """
import sys, time
from pathlib import Path
from multiad_med.preparation import load_recipe, prepare

def endless(self, item):
    Path(sys.argv[2], "at work").touch()
    time.sleep(1000)

type(load_recipe("brats2021")).transforms = lambda self, source: lambda item: endless(self, item)
prepare(load_recipe("brats2021", {"size": 64}), sys.argv[1], sys.argv[2], workers=2)
"""

INFERENCE = """
import sys, time
from pathlib import Path
from multiad_med.data import StudyDataset
from torch.utils.data import DataLoader

def endless(item):
    Path(sys.argv[2], "at work").touch()
    time.sleep(1000)

Path(sys.argv[2]).mkdir()
dataset = StudyDataset([{"image": "a.nii"}, {"image": "b.nii"}], endless)
for batch in DataLoader(dataset, num_workers=2):
    pass
"""

COHORT = """
import sys, time
from pathlib import Path
from multiad_med.demo import cohort

def endless(*subject):
    Path(sys.argv[2], "at work").touch()
    time.sleep(1000)

cohort._subject = endless
cohort.make_cohort(sys.argv[2])
"""

TRAINING = """
import sys
from pathlib import Path
from multiad_med.resources import run_bundle
import torch

Path(sys.argv[2]).mkdir()
run_bundle(
    "multiad_brain_mri", "train.json", workflow_type="train", dataset_dir=sys.argv[1],
    ckpt_dir=sys.argv[2], output_dir=sys.argv[2], size=64, device=torch.device("cpu"),
    max_epochs=1000, batch_size=2, num_workers=2, preset="resnet18", teacher_weights="random",
)
"""

TASK = """
import subprocess, sys
from multiad_med.label.background import mark_server

mark_server()
code = (
    "import sys, time; from pathlib import Path;"
    "from multiad_med.label.background import end_with_server; end_with_server();"
    "Path(sys.argv[1]).mkdir(); Path(sys.argv[1], 'at work').touch(); time.sleep(1000)"
)
subprocess.run([sys.executable, "-c", code, sys.argv[2]])
"""


def endless() -> None:
    """Stands for a training; what it cleans up says how it ended."""
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    Path(sys.argv[2], "at work").touch()
    try:
        time.sleep(1000)
    finally:
        Path(sys.argv[2], "cleaned up").touch()


def brats(folder: Path) -> Path:
    make_brats(folder, rng=np.random.default_rng(0), studies=4, shape=(24, 24, 12))
    return folder


def nothing(folder: Path) -> Path:
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "make", "number"),
    [
        pytest.param(code, make, number, id=f"{name}-{number.name}")
        for name, code, make in (
            ("compare", COMPARE, make_cache),
            ("prepare", PREPARE, brats),
            ("cohort", COHORT, nothing),
            ("inference", INFERENCE, nothing),
            ("task-of-monai-label", TASK, nothing),
        )
        for number in (signal.SIGTERM, signal.SIGKILL)
    ],
)
def test_children_end_with_their_command(
    code: str, make: Callable[[Path], Path], number: signal.Signals, tmp_path: Path
) -> None:
    data, out = make(tmp_path / "data"), tmp_path / "out"
    (tmp_path / "script.py").write_text(code)
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "script.py", str(data), str(out)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        _wait_for(lambda: (out / "at work").exists(), running, tmp_path / "log")
        children = descendants(running.pid)
        assert children
        running.send_signal(number)
        assert running.wait(30) != 0
    assert survivors(children, seconds=10) == set()
    if code is COMPARE and number != signal.SIGKILL:
        assert (out / "cleaned up").exists()


@pytest.mark.slow
def test_workers_of_a_training_end_with_it(tmp_path: Path) -> None:
    """By torch's own watch, which looks every five seconds."""
    data, out = make_brains(tmp_path), tmp_path / "out"
    (tmp_path / "script.py").write_text(TRAINING)
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "script.py", str(data), str(out)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        _wait_for(lambda: len(descendants(running.pid)) >= 2, running, tmp_path / "log")
        children = descendants(running.pid)
        running.kill()
        running.wait()
    assert survivors(children, seconds=20) == set()


def _wait_for(done: Callable[[], bool], running: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while not done():
        alive = running.poll() is None and time.monotonic() < end
        assert alive, log.read_text()
        time.sleep(0.05)


def test_sigterm_is_cleaned_up_after_and_handled_as_before_afterwards() -> None:
    cleaned = []

    def work() -> None:
        with terminable():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            finally:
                cleaned.append("up")

    with pytest.raises(SystemExit) as end:
        work()
    assert cleaned == ["up"]
    assert end.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_someone_else_stays() -> None:
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("theirs"))
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert seen == ["theirs"]


def test_the_status_of_a_process_is_told() -> None:
    assert run_in_process(sys.exit, 3) == 3
    assert run_in_process(print) == 0
