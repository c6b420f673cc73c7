"""``multiad evaluate`` and ``multiad calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multiad_med.detector import AnomalyDetector
from tests.cli.conftest import write_heads
from tests.cli.runs import mistake, multiad

CPU = ("--device", "cpu")


def test_the_report_is_written_and_a_failed_study_is_status_1(
    model: Path, cohort: Path, tmp_path: Path
) -> None:
    words = ("evaluate", cohort, "-m", model, "-o", tmp_path / "report", "--bootstrap", 5, *CPU)
    result = multiad(*words)
    assert result.exit_code == 0, result.output
    assert f"The report is {tmp_path / 'report' / 'report.html'}." in result.stdout
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["counts"]["studies"] == 2
    (cohort / "images" / "s4.nii.gz").write_bytes(b"no image")
    failed = multiad(*words)
    assert failed.exit_code == 1
    assert "1 of 2 studies failed" in failed.stderr


def test_mistakes_are_told(model: Path, tmp_path: Path) -> None:
    new = write_heads(tmp_path / "new", 2)
    out = ("-o", tmp_path / "report", *CPU)
    assert "no model file" in mistake("evaluate", new, "-m", tmp_path / "m.pt", *out)
    assert "does not exist" in mistake("evaluate", tmp_path / "none", "-m", model, *out)
    assert "prepared slices only" in mistake("evaluate", new, "-m", model, "--part", "report", *out)
    assert "holds other files" in mistake("evaluate", new, "-m", model, "-o", new)


def test_calibrate_hands_on_what_is_given_and_tells_the_new_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def calibrate(self: AnomalyDetector, good: Path, **options: Any) -> Path:
        given.update(good=good, **options)
        return tmp_path / "new.pt"

    monkeypatch.setattr(AnomalyDetector, "calibrate", calibrate)
    words = ("calibrate", model, tmp_path / "good", "--bad", tmp_path / "bad", "--rate", 0.01)
    result = multiad(*words, "-o", tmp_path / "new.pt", *CPU)
    assert result.exit_code == 0, result.output
    assert given == {
        "good": tmp_path / "good",
        "bad": tmp_path / "bad",
        "rate": 0.01,
        "output": tmp_path / "new.pt",
    }
    assert f"The model with its new thresholds is {tmp_path / 'new.pt'}." in result.stdout


@pytest.mark.parametrize("rate", ["-0.1", "1.5", "x"])
def test_a_rate_lies_between_0_and_1(rate: str) -> None:
    assert "--rate" in mistake("calibrate", "m.pt", "good", "--rate", rate)
