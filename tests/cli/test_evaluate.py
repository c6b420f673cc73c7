"""``multiad evaluate`` and ``multiad calibrate``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multiad_med.networks import read_card
from multiad_med.scoring import Level
from tests.cli.conftest import write_heads
from tests.cli.runs import mistake, multiad

CPU = ("--device", "cpu")


@pytest.mark.slow
def test_the_report_is_written_and_a_failed_study_is_status_1(
    model: Path, cohort: Path, tmp_path: Path
) -> None:
    words = ("evaluate", cohort, "-m", model, "-o", tmp_path / "report", "--bootstrap", 5, *CPU)
    result = multiad(*words)
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "report" / "report.html") in result.stdout
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
    assert "Only prepared slices" in mistake("evaluate", new, "-m", model, "--part", "report", *out)
    assert "holds other files" in mistake("evaluate", new, "-m", model, "-o", new)


def test_calibrate_writes_a_model_and_shows_rates_to_choose_from(
    model: Path, tmp_path: Path
) -> None:
    good = write_heads(tmp_path / "good", 3, seed=5)
    bad = write_heads(tmp_path / "bad", 2, seed=6)
    new = tmp_path / "new.pt"
    words = ("calibrate", model, good, "--bad", bad, "--rate", 0.3, "-o", new, *CPU)
    result = multiad(*words)
    assert result.exit_code == 0, result.output
    card = read_card(new)
    assert card is not None
    assert card.level(Level.VOLUME).rate == 0.3
    assert card.level(Level.VOLUME).units == 3
    assert "30 % (chosen)" in result.stdout
    assert "% of 2" in result.stdout  # of the anomalous ones
    assert str(new) in result.stdout


def test_calibrate_needs_normal_studies_that_the_model_has_not_seen(
    model: Path, tmp_path: Path
) -> None:
    seen = model.parent.parent / "normal"
    out = ("-o", tmp_path / "new.pt", *CPU)
    assert "model was trained on" in mistake("calibrate", model, seen, *out)
    assert "does not exist" in mistake("calibrate", model, tmp_path / "none", *out)
    (tmp_path / "empty").mkdir()
    assert "holds no studies" in mistake("calibrate", model, tmp_path / "empty", *out)
    assert not (tmp_path / "new.pt").exists()


@pytest.mark.parametrize("rate", ["-0.1", "1.5", "x"])
def test_a_rate_lies_between_0_and_1(rate: str) -> None:
    assert "--rate" in mistake("calibrate", "m.pt", "good", "--rate", rate)
