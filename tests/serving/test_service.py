"""``multiad serve`` as it is run: its log, health endpoint and signals; a folder, and a PACS."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from multiad_med.cli import app
from multiad_med.serving import FolderSource, HealthServer, StudyLedger, ledger_status
from multiad_med.serving import service as command
from tests.dicom_files import save
from tests.serving.pacs import EXAMPLES, head_series, needs_orthanc

ROOT = Path(__file__).parents[2]
MULTIAD = [sys.executable, "-c", "from multiad_med.cli import app; app()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
PATIENT = "DoeJane"  # which highdicom warns of, naming it


class Service:
    """A running ``multiad serve`` and the lines of its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def lines(self) -> list[str]:
        """Whole lines of all that it has written until now."""
        return [line for line in self.log.read_text().splitlines(True) if line.endswith("\n")]

    def events(self, name: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.lines]
        return [event for event in parsed if event["event"] == name]

    def wait(self, name: str, count: int = 1, seconds: float = 120) -> list[dict[str, Any]]:
        end = time.monotonic() + seconds
        while len(found := self.events(name)) < count:
            assert time.monotonic() < end, "".join(self.lines)
            assert self.process.poll() is None, "".join(self.lines)
            time.sleep(0.05)
        return found

    def end(self, number: int | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(120)


@contextmanager
def serving(source: str | Path, model: Path, output: Path, *options: str) -> Iterator[Service]:
    number, log = tempfile.mkstemp(suffix=".log")
    process = subprocess.Popen(
        [
            *(*MULTIAD, "serve", str(source), "--model", str(model), "--output", str(output)),
            *("--set", "size=64", "--device", "cpu", "--port", "0"),
            *("--interval", "0.2", *options),
        ],
        env=ENVIRONMENT,
        stderr=number,
    )
    os.close(number)
    service = Service(process, Path(log))
    try:
        yield service
    finally:
        process.kill()
        service.end()


def health(service: Service, path: str) -> tuple[int, Any]:
    address = f"http://127.0.0.1:{service.wait('ready')[0]['port']}{path}"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_a_folder_is_served_until_sigterm_and_the_log_names_no_patient(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    with serving(folder, model, output, "--settle", "0.3", "--tries", "1") as service:
        service.wait("ready")
        save(head_series("1", patient=PATIENT), folder / PATIENT)
        save(head_series("2", patient=PATIENT)[::2][:2], folder / f"{PATIENT}-2")
        bad = head_series("3", patient=PATIENT)
        save(bad[:2] + bad[3:], folder / f"{PATIENT}-bad")
        outcomes = service.wait("over", 3)
        assert sorted(event["state"] for event in outcomes) == ["done", "done", "failed"]
        status, about = health(service, "/health")
        assert (status, about["status"]) == (200, "ok")
        assert about["studies"] == {
            **{"waiting": 0, "running": 0, "done": 2, "passed_over": 0, "failed": 1}
        }
        assert health(service, "/ready")[0] == 200
        assert service.end(signal.SIGTERM) == 0
    assert len(service.events("stopped")) == 1
    results = output / "results" / f"{PATIENT}_anomaly_dicom"
    assert {path.name for path in results.iterdir()} == {"seg.dcm", "sr.dcm"}
    assert str(dcmread(results / "sr.dcm").PatientName) == PATIENT
    log = "".join(service.lines)
    assert not re.search("doe|jane|1\\.2\\.3", log, re.IGNORECASE)
    assert str(tmp_path) not in log


@pytest.mark.slow
def test_what_keeps_the_service_from_starting_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "log_to", lambda **_: None)
    (tmp_path / "in").mkdir()
    taken = HealthServer({}, port=0)
    StudyLedger(tmp_path / "other/ledger.sqlite").check_made_by({"model": "another"})
    good = {"--model": model, "--output": tmp_path / "out", "--set": "size=64", "--port": 0}
    for change, source, message in (
        ({}, "nowhere", "nowhere: no such folder to watch"),
        ({"--port": taken.port}, "in", f"port {taken.port} of 127.0.0.1: it is in use"),
        ({"--output": tmp_path / "in/out"}, "in", "lies in the watched folder"),
        ({"--output": tmp_path / "other"}, "in", "is of another bundle and model and settings"),
        ({"--model": tmp_path / "no.pt"}, "in", "There is no model file"),
        ({"--bundle": "multiad_industrial"}, "in", 'asked for is "multiad_industrial"'),
        ({"--kind": "dicom"}, "in", "'dicom' is not one of 'seg', 'pm', 'overlay', 'sr', 'none'"),
        ({"--set": "preset=resnet1"}, "in", "resnet1"),
        ({"--set": "size=0"}, "in", "size"),
        ({"--set": "sizze=64"}, "in", "Did you mean size?"),
        ({"--set": "size"}, "in", "--set takes NAME=VALUE, got 'size'"),
        ({"--filter": "Modality=MR"}, "in", "--filter is for a DICOMweb source"),
    ):
        options = [str(part) for pair in {**good, **change}.items() for part in pair]
        result = CliRunner().invoke(app, ["serve", str(tmp_path / source), *options])
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
        assert message in result.output
        assert result.output.count("\n") == 1
    taken.close()


def test_a_ledger_of_a_folder_is_not_taken_for_one_of_a_pacs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
    monkeypatch.setattr(command, "log_to", lambda **_: None)
    monkeypatch.setattr(command, "_run", lambda *_, **__: None)
    (tmp_path / "in").mkdir()
    options = ["--model", str(model), "--output", str(tmp_path / "out"), "--port", "0"]
    folder, pacs = (
        CliRunner().invoke(app, ["serve", source, *options])
        for source in (str(tmp_path / "in"), "http://127.0.0.1:9/dicom-web")
    )
    assert folder.exit_code == 0, folder.output
    assert pacs.exit_code == 2
    assert re.search(r"ledger\.sqlite\b.*another source", pacs.output)


def test_once_ends_with_an_error_when_a_study_failed_and_signals_are_as_before(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "log_to", lambda **_: None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.nii.gz").write_bytes(b"no image")
    options = ["--model", str(model), "--output", str(tmp_path / "out"), "--port", "0", "--once"]
    quick = ["--settle", "0", "--interval", "0.1"]  # and no second try of what is broken
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "in"), *options, *quick])
    assert result.exit_code == 1
    assert "1 of the studies failed; the others are done" in result.output
    assert f"multiad serve status {tmp_path / 'out'}" in result.output
    assert "broken.nii.gz" in ledger_status(tmp_path / "out")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_once_ends_with_an_error_that_says_why_the_pacs_does_not_answer(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
    monkeypatch.setattr(command, "log_to", lambda **_: None)
    options = ["--model", str(model), "--output", str(tmp_path / "out"), "--port", "0", "--once"]
    result = CliRunner().invoke(app, ["serve", "http://127.0.0.1:9/dicom-web", *options])
    assert result.exit_code == 2
    assert "does not answer as it should: no connection, or it was lost" in result.output


def test_once_reports_a_lone_damaged_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "log_to", lambda **_: None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.dcm").write_bytes(b"\0" * 128 + b"DICM\2\0")
    options = ["--model", str(model), "--output", str(tmp_path / "out"), "--port", "0", "--once"]
    quick = ["--settle", "0", "--interval", "0.1", "--tries", "1", "--kind", "none"]
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "in"), *options, *quick])
    assert result.exit_code == 1
    assert "1 of the studies failed" in result.output
    ledger = sqlite3.connect(tmp_path / "out/ledger.sqlite")
    ((reason,),) = ledger.execute("SELECT reason FROM studies")
    assert "broken.dcm" in reason


def test_an_error_of_its_own_is_told_without_its_message(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: FolderSource) -> None:
        raise TypeError(f"cannot add {PATIENT} and 1")

    monkeypatch.setattr(command, "log_to", lambda **_: None)
    monkeypatch.setattr(FolderSource, "find", broken)
    (tmp_path / "in").mkdir()
    options = ["--model", str(model), "--output", str(tmp_path / "out"), "--port", "0"]
    result = CliRunner().invoke(app, ["serve", str(tmp_path / "in"), *options])
    assert result.exit_code == 2
    assert re.search("^Error: .*fault of the program", result.output)
    assert PATIENT not in result.output


@pytest.mark.slow
@needs_orthanc
def test_the_example_brings_a_series_to_orthanc_and_its_results_back(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
    series = save(head_series("7", patient=PATIENT), tmp_path / "series")
    result = subprocess.run(
        [
            *(sys.executable, str(EXAMPLES / "round_trip.py"), str(series), str(model)),
            *(str(tmp_path / "out"), "--set", "size=64"),
            *(part for kind in ("seg", "pm", "overlay", "sr") for part in ("--kind", kind)),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for told in (
        *("stored: 6 instances of MR", "as written: Segmentation Storage, 1 object"),
        *("as written: Parametric Map Storage, 1 object", "Comprehensive SR Storage, 1 object"),
        *("Secondary Capture Image Storage, 6 object", "no result appears twice"),
    ):
        assert told in result.stdout
    assert not re.search("doe|jane", result.stderr, re.IGNORECASE)
