"""A command that was killed leaves no process, goes on where it stopped and does nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bundles.test_folder_inference import nifti_head

psutil = pytest.importorskip("psutil", reason="needs psutil")
pytest.importorskip("ray", reason="needs the extra scale")

STUDIES = 16


def command(source: Path, model: Path, out: Path) -> list[str]:
    words = ("predict", source, "-m", model, "-o", out, "--ray", "local", "--set", "size=64")
    python = "from multiad_med.cli import app; app()"
    return [sys.executable, "-c", python, *map(str, words)]


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_stopped(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(STUDIES):
        nifti_head(source / f"s{number}.nii.gz", seed=number)
    words = command(source, model, out)
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not (first := list(out.glob("*_anomaly.json"))):
        assert time.monotonic() < end
        assert driver.poll() is None
        time.sleep(0.02)
    family = psutil.Process(driver.pid).children(recursive=True)
    at_work = [process for process in family if "Agent" not in process.name()]  # these look later
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(at_work, timeout=60)
    assert not alive
    done = {path: path.stat().st_mtime_ns for path in out.glob("*_anomaly.json")}
    assert len(first) <= len(done) < STUDIES

    again = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    counts = json.loads((out / "summary.json").read_text())["counts"]
    assert counts == {"done": STUDIES - len(done), "skipped": len(done), "failed": 0}
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert not list(out.rglob(".partial-*"))
