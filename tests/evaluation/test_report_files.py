"""The files of a report: the same bytes again, all of them or none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multiad_med.evaluation.evaluation import Curve, Example, Histogram
from multiad_med.evaluation.report import write_report
from multiad_med.utils import FileError, InputError
from tests.evaluation.reports import NAME, NAN, Reader, full, page_of, study


def test_metrics_and_tables_are_written(tmp_path: Path) -> None:
    evaluation = full()
    write_report(evaluation, tmp_path / "new" / "folder", title="t")
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == [
        "metrics.json",
        "patients.csv",
        "report.html",
        "slices.csv",
        "studies.csv",
    ]
    assert json.loads((folder / "metrics.json").read_text()) == evaluation.as_json()
    with (folder / "slices.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [["study", "slice", "score"], [NAME, "3", "0.123457"]]
    with (folder / "studies.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[-1] == "hd95_mm"  # only the second row has it
    assert [row["dice"] for row in rows] == ["0.123457", "0.123457", ""]
    assert [row["hd95_mm"] for row in rows] == ["", "", ""]
    assert rows[0]["anomalous"] == "True"


@pytest.mark.slow
def test_the_page_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def noise(best: bool) -> Example:
        image, heat = torch.rand(2, 512, 512, generator=torch.Generator().manual_seed(1))
        return Example("noise", image, heat, heat > 0.8, best)

    steps = np.sort(rng.random((2, 200_000)), axis=1).tolist()
    huge = full(
        examples=[noise(best) for best in (True, False) for _ in range(9)],
        curves={
            name: [Curve(str(i), steps[0], steps[1]) for i in range(4)]
            for name in ("roc", "precision_recall", "froc", "reliability")
        },
        histograms={"slices": Histogram(*rng.random((2, 100_000)).tolist(), 0.5)},
        training=[Curve("L_G", list(range(200_000)), rng.random(200_000).tolist())],
        studies=[study(i) for i in range(5000)],
    )
    page = page_of(huge, tmp_path)
    assert len(Reader(page).values("src")) == 36
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_the_same_evaluation_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(full(), tmp_path / name, title="t")
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab"
    )
    assert "report.html" in first
    assert first == second


def test_names_that_are_no_text_do_not_stop_it(tmp_path: Path) -> None:
    odd = b"scan-\xff".decode("utf-8", "surrogateescape")
    studies = [study(0, study=odd)]
    curves = {"roc": [Curve(odd, [0, 1], [0, 1])]}
    assert r"scan-\udcff" in page_of(full(studies=studies, curves=curves), tmp_path)


def test_other_things_than_evaluations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Evaluation.*got dict"):
        write_report({}, tmp_path / "x", title="t")  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(FileError, match=r"file.metrics\.json cannot be written"):
        write_report(full(), tmp_path / "file", title="t")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curves": {"roc": [Curve("c", [0, 1], [0])]}}, "'c'.*2 x.*1 y"),
        (
            {"examples": [Example("e", torch.zeros(4, 4), torch.zeros(4, 5), torch.zeros(4, 4), True)]},
            r"image \(4, 4\).*anomaly_map \(4, 5\)",
        ),
        (
            {"examples": [Example("e", torch.zeros(1, 4, 4), *torch.zeros(2, 4, 4), True)]},
            r"image must be \(H, W\)",
        ),
        ({"manifest": {"rate": NAN}}, "not JSON compliant"),
    ],
)  # fmt: skip
def test_nothing_is_written_unless_everything_can_be(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_report(full(**changes), tmp_path, title="t")
    assert list(tmp_path.iterdir()) == []
