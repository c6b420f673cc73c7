"""False alarms and verdicts of an evaluation, by the rates of its model."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

from multiad_med.evaluation import Case, Thresholds, evaluate_cases
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.slice_caches import volume_case
from tests.evaluation.cases import LEVELS, volume_cases


def test_observed_rates_are_those_of_normal_slices() -> None:
    case = volume_case("a", lesion=False)
    case.anomaly_map = torch.zeros_like(case.anomaly_map)
    case.anomaly_map[0, :2] = 0.5  # 64 of 6144 pixels reach the threshold
    case.scores = case.anomaly_map.flatten(1).amax(dim=1)
    found = evaluate_cases([case], thresholds=LEVELS, bootstrap=5).calibration
    assert found["pixel"].observed.value == pytest.approx(64 / 6144)
    assert found["slice"].observed.value == pytest.approx(1 / 6)
    assert math.isnan(found["slice"].sensitivity.value)
    assert (found["pixel"].normal, found["slice"].normal, found["slice"].anomalous) == (6144, 6, 0)


def _scored(name: str, score: float, *, lesion: bool = False) -> Case:
    """A volume whose highest slice scores so."""
    case = volume_case(name, lesion=lesion)
    case.scores = torch.tensor([0.0, 0.1, 0.2, 0.1, 0.0, score])
    case.abnormal = torch.tensor([lesion] + 5 * [False])
    return case


def test_each_level_is_judged_by_its_own_normal_scores() -> None:
    """Slices need 0.3, volumes 0.6, patients 0.8; each level's rate is told with its interval."""
    levels = {
        level: NormalScores((score,) * 19, 0.05)
        for level, score in ((Level.SLICE, 0.3), (Level.VOLUME, 0.6), (Level.PATIENT, 0.8))
    }
    cases = [
        _scored("a_1", 0.5),
        _scored("b_1", 0.7),
        _scored("b_2", 0.4),
        _scored("c_1", 0.9, lesion=True),
        _scored("c_2", 0.1, lesion=True),
    ]
    evaluation = evaluate_cases(cases, thresholds=Thresholds(levels=levels), bootstrap=200)
    assert [(row["study"], row["verdict"]) for row in evaluation.studies] == [
        ("a_1", "normal"),
        ("b_1", "anomalous"),
        ("b_2", "normal"),
        ("c_1", "anomalous"),
        ("c_2", "normal"),
    ]
    assert [row["p_value"] for row in evaluation.studies] == [1.0, 0.05, 1.0, 0.05, 1.0]
    assert [(row["subject"], row["score"], row["verdict"]) for row in evaluation.patients] == [
        ("a", pytest.approx(0.5), "normal"),
        ("b", pytest.approx(0.7), "normal"),
        ("c", pytest.approx(0.9), "anomalous"),
    ]
    found = evaluation.calibration
    assert list(found) == ["pixel", "slice", "volume", "patient"]
    assert (found["volume"].normal, found["volume"].anomalous, found["volume"].held_out) == (
        3,
        2,
        19,
    )
    # One of three normal volumes: Clopper and Pearson's interval, from a table.
    volume = found["volume"].observed
    assert (volume.value, volume.low, volume.high) == pytest.approx(
        (1 / 3, 0.00840, 0.90570), abs=1e-4
    )
    assert found["volume"].sensitivity.value == 0.5
    # None of two normal patients: 0 to 1 - 0.025 ** (1 / 2).
    patient = found["patient"].observed
    assert (patient.value, patient.low, patient.high) == pytest.approx((0, 0, 1 - 0.025**0.5))
    # Of the 28 normal slices the last ones of a_1, b_1, b_2 and c_1.
    slices = found["slice"].observed
    assert slices.value == pytest.approx(4 / 28)
    assert slices.low <= slices.value <= slices.high
    told = evaluation.as_json()["calibration"]["volume"]
    assert told["threshold"] == pytest.approx(0.6)
    assert (told["nominal_rate"], told["held_out_normals"], told["no_verdict"]) == (0.05, 19, "")
    assert told["observed_rate_95"] == pytest.approx([0.00840, 0.90570], abs=1e-4)


def test_where_a_rate_is_out_of_reach_there_is_no_verdict_and_no_rate() -> None:
    levels = {Level.VOLUME: NormalScores((0.2, 0.3, 0.4), 0.05, approximate="few subjects")}
    evaluation = evaluate_cases(volume_cases(2), thresholds=Thresholds(levels=levels), bootstrap=5)
    volume = evaluation.as_json()["calibration"]["volume"]
    assert volume["threshold"] is volume["observed_rate"] is volume["sensitivity"] is None
    assert re.search(r"^no verdict: 3 normal volumes\b.*\b25 %", volume["no_verdict"])
    assert volume["approximate"] == "few subjects"
    row = evaluation.as_json()["studies"][0]
    assert row["verdict"] == volume["no_verdict"]
    assert row["p_value"] == 0.25  # scores above all three: 1 / (3 + 1)
    json.dumps(evaluation.as_json(), allow_nan=False)


@pytest.mark.slow
def test_false_alarms_are_told_of_each_study_at_each_level() -> None:
    normal, anomalous = volume_case("a_1", lesion=False), volume_case("b_1", lesion=True)
    normal.anomaly_map = torch.zeros_like(normal.anomaly_map)
    normal.anomaly_map[0, :2] = 0.5  # 64 of 6144 pixels, in one slice of six
    anomalous.anomaly_map[5, 0, :3] = 0.6  # 3 of the 6144 - 72 normal pixels, in one normal slice
    for case in (normal, anomalous):
        case.scores = case.anomaly_map.flatten(1).amax(dim=1)
    evaluation = evaluate_cases([normal, anomalous], thresholds=LEVELS, bootstrap=5)
    found = [
        [row[f"false_alarm_{level}"] for level in ("pixels", "slices", "volume")]
        for row in evaluation.studies
    ]
    assert found == [[pytest.approx(64 / 6144), 1, True], [pytest.approx(3 / 6072), 1, None]]
    assert [row["false_alarm_patient"] for row in evaluation.patients] == [True, None]
    without = evaluate_cases([normal], bootstrap=5).studies[0]  # no verdict of slices and volumes
    assert (without["false_alarm_slices"], without["false_alarm_volume"]) == (None, None)


@pytest.mark.slow
def test_images_have_no_patients_unless_some_share_one() -> None:
    def image(study: str, subject: str) -> Case:
        case = volume_case(study, lesion=study == "a")
        cut = {
            name: getattr(case, name)[2:3]
            for name in (
                "image", "anomaly_map", "label", "foreground", "numbers", "scores", "abnormal",
            )
        }  # fmt: skip
        return Case(study=study, subject=subject, upright=True, **cut)

    words = evaluate_cases([image("a", "a"), image("b", "b")], bootstrap=5).words
    assert (words.images, words.patients) == (True, False)
    words = evaluate_cases([image("a", "p"), image("b", "p")], bootstrap=5).words
    assert (words.images, words.patients) == (True, True)
    words = evaluate_cases(volume_cases(2), bootstrap=5).words
    assert (words.images, words.patients) == (False, True)
