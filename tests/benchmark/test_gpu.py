"""The measurement on a GPU runs on a CPU too, where its figures mean nothing."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_it_prints_a_line_per_precision_and_batch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--device", "cpu", "--size", "32", "--batches", "1", "2", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["gpu.py", *words, "--no-compile"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    about, _, _, *rows = capsys.readouterr().out.splitlines()
    assert about.startswith("CPU, torch ")
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| {features}", batch] for batch in ("1", "2") for features in ("AMP", "float32")
    ]
