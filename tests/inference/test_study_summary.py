"""The summary of an output folder: every study once, whatever run judged it."""

from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from multiad_med.data import StudyDataset, StudyOutcome, StudyResults, StudyStatus
from multiad_med.inference import StudySummaryHandler
from multiad_med.visualize import contact_sheet

DONE, SKIPPED, FAILED = StudyStatus.DONE, StudyStatus.SKIPPED, StudyStatus.FAILED


def run(
    source: Path, out: Path, **outcomes: tuple[StudyStatus, float, float]
) -> list[dict[str, Any]]:
    """A run over studies by name, each with status, score and seconds; the rows of the summary."""
    images = {name: str(source / f"{name}.nii") for name in outcomes}
    dataset = StudyDataset([{"image": image} for image in images.values()], dict)
    results = StudyResults(out, source=source, network=torch.nn.Identity())
    for name, (status, score, seconds) in outcomes.items():
        told = "cannot be read" if status is FAILED else ""
        dataset.outcomes.append(StudyOutcome(images[name], status, seconds, told))
        if status is DONE:
            out.mkdir(exist_ok=True)
            content = {"volume_score": score, "volume_p_value": 0.25, "verdict": "normal"}
            (out / f"{name}_anomaly.json").write_text(json.dumps(content))
    StudySummaryHandler(dataset, results)(Engine(lambda e, b: None))
    content = json.loads((out / "summary.json").read_text())
    with (out / "summary.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    rows: list[dict[str, Any]] = content["studies"]
    assert [row["image"] for row in table] == [row["image"] for row in rows]
    statuses = [status for status, *_ in outcomes.values()]
    assert content["counts"] == {str(s): statuses.count(s) for s in StudyStatus}
    return rows


def told(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [(Path(row["image"]).stem, *(row[name] for name in names)) for row in rows]


@pytest.mark.parametrize("verdict", ["anomalous", "normal", "no verdict: 6 normal volumes"])
def test_the_summary_has_the_verdict_or_says_why_there_is_none(
    tmp_path: Path, verdict: str
) -> None:
    dataset = StudyDataset([{"image": str(tmp_path / "a.nii")}], dict)
    dataset.outcomes = [StudyOutcome(str(tmp_path / "a.nii"), StudyStatus.DONE, 1.0)]
    results = StudyResults(tmp_path, source=tmp_path, network=torch.nn.Identity())
    scores = {"volume_score": 0.7, "volume_p_value": 0.25, "verdict": verdict}
    (tmp_path / "a_anomaly.json").write_text(json.dumps(scores))
    StudySummaryHandler(dataset, results)(Engine(lambda e, b: None))
    (row,) = json.loads((tmp_path / "summary.json").read_text())["studies"]
    assert (row["score"], row["p_value"], row["decision"]) == (0.7, 0.25, verdict)
    assert row["map"] == "a_anomaly_map.nii.gz"


def test_a_second_run_adds_its_studies_and_replaces_only_their_own_rows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tmp_path / "monday", out, a=(DONE, 0.2, 5.0), b=(FAILED, 0, 1.0))
    rows = run(tmp_path / "monday", out, b=(DONE, 0.4, 6.0))
    assert told(rows, "status", "score", "message") == [
        ("a", "done", 0.2, ""),
        ("b", "done", 0.4, ""),
    ]
    rows = run(tmp_path / "tuesday", out, c=(DONE, 0.9, 7.0))  # of another folder
    assert told(rows, "score", "seconds") == [("a", 0.2, 5.0), ("b", 0.4, 6.0), ("c", 0.9, 7.0)]


def test_a_study_that_is_skipped_keeps_its_row(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tmp_path, out, a=(DONE, 0.2, 5.0))
    rows = run(tmp_path, out, a=(SKIPPED, 0, 0.001), b=(DONE, 0.3, 4.0))
    assert told(rows, "status", "score", "seconds", "map") == [
        ("a", "skipped", 0.2, 5.0, "a_anomaly_map.nii.gz"),
        ("b", "done", 0.3, 4.0, "b_anomaly_map.nii.gz"),
    ]


def test_a_study_whose_results_another_image_replaced_has_no_row(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tmp_path / "x", out, a=(DONE, 0.2, 5.0))
    rows = run(tmp_path / "y", out, a=(DONE, 0.6, 5.0))
    assert [(row["image"], row["score"]) for row in rows] == [(str(tmp_path / "y/a.nii"), 0.6)]


@pytest.mark.parametrize("content", ["{", "[]", '{"studies": [1]}', '{"studies": [{}]}'])
def test_a_summary_that_cannot_be_read_is_told_and_replaced(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "summary.json").write_text(content)
    assert told(run(tmp_path, tmp_path, a=(DONE, 0.2, 5.0)), "score") == [("a", 0.2)]
    assert re.search(r"summary\.json.*earlier runs", caplog.text)


def test_rows_of_an_older_version_stay(tmp_path: Path) -> None:
    old = {"image": "x/old.nii", "status": "done", "score": 0.5, "p_value": 0.1}
    (tmp_path / "summary.json").write_text(json.dumps({"counts": {}, "studies": [old]}))
    rows = run(tmp_path, tmp_path, a=(DONE, 0.2, 5.0))
    assert told(rows, "score", "map") == [
        ("old", 0.5, None),
        ("a", 0.2, "a_anomaly_map.nii.gz"),
    ]


def test_a_contact_sheet_that_fails_costs_no_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(contact_sheet, "write_contact_sheet", fail)
    with caplog.at_level(logging.WARNING):
        assert told(run(tmp_path, tmp_path, a=(DONE, 0.2, 5.0)), "score") == [("a", 0.2)]
    assert re.search(r"summary\.html.*no fonts", caplog.text)
