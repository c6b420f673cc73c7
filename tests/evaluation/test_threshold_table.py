"""Rates to choose from: by hand, in the metrics, on the page and in a terminal."""

from __future__ import annotations

import re

import torch

from multiad_med.evaluation import evaluate_cases
from multiad_med.evaluation.collected import Thresholds
from multiad_med.evaluation.report.page import render_page
from multiad_med.evaluation.report.tables import threshold_table
from multiad_med.evaluation.threshold_table import threshold_rows, threshold_text
from multiad_med.evaluation.words import Words
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.slice_caches import volume_case

NORMALS = NormalScores(tuple(i / 100 for i in range(1, 40)), 0.05)  # 39 scores, 0.01 to 0.39


def test_each_rate_in_reach_has_its_threshold_and_shares() -> None:
    scores = torch.tensor([0.1, 0.365, 0.5, 0.37, 0.385, 0.6])
    anomalous = torch.tensor([False, False, False, True, True, True])
    rows = threshold_rows(NORMALS, scores, anomalous)
    # floor(0.1 * 40) = 4, floor(0.05 * 40) = 2; 0.02 and less need 49 normal units.
    assert [(row["rate"], row["chosen"]) for row in rows] == [(0.1, False), (0.05, True)]
    for row, above in zip(rows, (0.36, 0.38), strict=True):
        assert 0 < row["threshold"] - above < 1e-6  # just above the fourth and the second highest
    assert [row["normal_above"] for row in rows] == [2 / 3, 1 / 3]
    assert [row["anomalous_above"] for row in rows] == [1.0, 2 / 3]
    assert {(row["normal"], row["anomalous"]) for row in rows} == {(3, 3)}


def test_the_models_own_rate_is_among_them_and_nothing_out_of_reach() -> None:
    nothing = torch.zeros(0)
    few = NormalScores((0.1,) * 8, 0.25)
    assert [row["rate"] for row in threshold_rows(few, nothing, nothing)] == [0.25]
    (row,) = threshold_rows(few, nothing, nothing)
    assert (row["normal_above"], row["anomalous_above"]) == (None, None)
    assert threshold_rows(NormalScores((), 0.05), nothing, nothing) == []
    many = NormalScores(tuple(i / 1000 for i in range(199)), 0.05)
    rates = [row["rate"] for row in threshold_rows(many, nothing, nothing)]
    assert rates == [0.1, 0.05, 0.02, 0.01, 0.005]


def test_the_terminal_has_a_line_for_each_rate() -> None:
    rows = threshold_rows(NORMALS, torch.tensor([0.2, 0.37]), torch.tensor([False, True]))
    head, *lines = (re.split(r"\s{2,}", line.strip()) for line in threshold_text(rows))
    assert [name.split()[0] for name in head] == ["Rate", "Threshold", "Normal", "Anomalous"]
    assert lines == [
        ["10 %", "0.3600", "0.0 % of 1", "100.0 % of 1"],
        ["5 % (chosen)", "0.3800", "0.0 % of 1", "0.0 % of 1"],
    ]


def test_metrics_and_page_have_the_table_of_slices_and_volumes() -> None:
    cases = [volume_case(name, lesion=name == "a") for name in ("a", "b")]
    levels = dict.fromkeys(Level, NormalScores((0.45,) * 19, 0.05))
    evaluation = evaluate_cases(cases, thresholds=Thresholds(levels=levels), bootstrap=5)
    table = evaluation.as_json()["thresholds_table"]
    assert set(table) == {"slice", "volume"}  # each patient has one volume
    assert [row["rate"] for row in table["volume"]] == [0.1, 0.05]
    chosen = next(row for row in table["volume"] if row["chosen"])
    rates = evaluation.calibration["volume"]
    assert (chosen["threshold"], chosen["normal_above"], chosen["anomalous_above"]) == (
        rates.threshold,
        rates.observed.value,
        rates.sensitivity.value,
    )
    assert "Rates to choose from" in render_page(evaluation, title="t")
    assert threshold_table({"volume": []}, Words()) is None
