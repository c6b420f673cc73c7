"""Metrics of whole evaluations, derived by hand or from scikit-learn."""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from multiad_med.evaluation import Case, Thresholds, evaluate_cases
from multiad_med.evaluation.evaluate import RunningEvaluation
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.slice_caches import SIZE, blob, volume_case
from multiad_med.utils.errors import InputError

# Of 19 held-out normals none scores above 0.49: what scores more is anomalous at a rate of 5 %.
LEVELS = Thresholds(
    pixel=0.5,
    pixel_rate=0.01,
    levels={level: NormalScores((0.49,) * 19, 0.05) for level in Level},
)


def _cohort(count: int = 4) -> list[Case]:
    return [
        volume_case(f"p{i}_t1", lesion=i % 2 == 0, seed=i, spacing=(1.0, 2.0, 3.0))
        for i in range(count)
    ]


def _value(evaluation, name: str) -> float:
    return next(level[name].value for level in evaluation.metrics.values() if name in level)


@pytest.mark.slow
def test_a_perfect_map_gives_one_everywhere() -> None:
    evaluation = evaluate_cases(_cohort(), thresholds=LEVELS, bootstrap=20)
    for name in (
        "image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "aupro", "dice",
        "best_dice", "foreground_pixel_auroc", "foreground_pixel_ap", "froc_score",
        "lesion_sensitivity_0.25", "mean_dice", "patient_auroc", "patient_ap",
    ):  # fmt: skip
        assert _value(evaluation, name) == pytest.approx(1), name
    assert _value(evaluation, "hd95") == 0
    # Lesions of 6 x 6 x 2 voxels of 1 x 2 x 3 mm are 432 mm3: medium.
    assert _value(evaluation, "froc_score_medium") == 1
    assert "froc_score_small" not in evaluation.metrics["lesions"]
    assert evaluation.counts == {
        "patients": 4,
        "studies": 4,
        "slices": 24,
        "abnormal_slices": 4,
        "lesions": 2,
        "studies_without_distance": 0,
    }


@pytest.mark.slow
def test_figures_equal_scikit_learn_on_a_noisy_map() -> None:
    cases = _cohort(6)
    generator = torch.Generator().manual_seed(7)
    for case in cases:
        noise = torch.rand(case.anomaly_map.shape, generator=generator)
        case.anomaly_map = 0.6 * case.anomaly_map + 0.4 * noise
        case.scores = case.anomaly_map.flatten(1).amax(dim=1)
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=20)
    maps = np.concatenate([c.anomaly_map.numpy().ravel() for c in cases])
    labels = np.concatenate([c.label.numpy().ravel() for c in cases])
    scores = np.concatenate([c.scores.numpy() for c in cases])
    abnormal = np.concatenate([c.abnormal.numpy() for c in cases])
    assert _value(evaluation, "pixel_auroc") == pytest.approx(roc_auc_score(labels, maps), abs=1e-6)
    assert _value(evaluation, "pixel_ap") == pytest.approx(
        average_precision_score(labels, maps), abs=1e-6
    )
    assert _value(evaluation, "image_auroc") == pytest.approx(roc_auc_score(abnormal, scores))
    flagged = maps >= 0.5
    assert _value(evaluation, "dice") == pytest.approx(
        2 * (flagged & labels).sum() / (flagged.sum() + labels.sum())
    )
    estimate = evaluation.metrics["pixels"]["pixel_auroc"]
    assert estimate.low <= estimate.value <= estimate.high


def test_pixels_outside_the_foreground_count_in_one_figure_only() -> None:
    cases = _cohort(2)
    for case in cases:
        case.foreground = torch.zeros_like(case.foreground)
        case.foreground[:, :16] = True
        case.anomaly_map[:, 16:] = 0.9  # background that shines
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5)
    assert _value(evaluation, "foreground_pixel_auroc") == 1
    assert _value(evaluation, "pixel_auroc") < 0.6


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
    evaluation = evaluate_cases(_cohort(2), thresholds=Thresholds(levels=levels), bootstrap=5)
    volume = evaluation.as_json()["calibration"]["volume"]
    assert volume["threshold"] is volume["observed_rate"] is volume["sensitivity"] is None
    assert volume["no_verdict"].startswith("no verdict: 3 normal volumes allow no rate below 25 %")
    assert volume["approximate"] == "few subjects"
    row = evaluation.as_json()["studies"][0]
    assert row["verdict"] == volume["no_verdict"]
    assert row["p_value"] == 0.25  # scores above all three: 1 / (3 + 1)
    json.dumps(evaluation.as_json(), allow_nan=False)


def test_a_case_is_let_go_before_the_next_is_made() -> None:
    alive: list[weakref.ref[Case]] = []
    maps: list[weakref.ref[torch.Tensor]] = []

    def cases() -> Iterator[Case]:
        for case_of in (lambda i=i: _cohort(i + 1)[i] for i in range(4)):
            assert all(case() is None for case in (*alive, *maps))
            yield _watched(case_of(), alive, maps)

    assert evaluate_cases(cases(), thresholds=LEVELS, bootstrap=5).counts["studies"] == 4
    assert len(alive) == 4


def _watched(case: Case, alive: list[Any], maps: list[Any]) -> Case:
    alive.append(weakref.ref(case))
    maps += [weakref.ref(tensor) for tensor in (case.anomaly_map, case.image, case.scores)]
    return case


@pytest.mark.slow
def test_what_is_kept_of_a_case_is_a_small_part_of_it() -> None:
    def kept_after(count: int) -> int:
        running = RunningEvaluation(LEVELS)
        for i in range(count):
            running.update(_large_case(i))
        gc.collect()
        # Whole storages: a slice that is kept as a view holds its volume.
        held = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for t in gc.get_objects()
            if issubclass(type(t), torch.Tensor)  # isinstance() asks deprecated objects, which warn
        }
        assert len(running) == count
        return sum(held.values())

    # From the seventh on no further slice is shown. A case has 1.1 MB, its histograms 82 kB.
    few, many = kept_after(7), kept_after(11)
    assert (many - few) / 4 < 120e3


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
    words = evaluate_cases(_cohort(2), bootstrap=5).words
    assert (words.images, words.patients) == (False, True)


def _large_case(number: int) -> Case:
    """1.1 MB: 27 slices of 64 x 64, 10 bytes a pixel."""
    generator = torch.Generator().manual_seed(number)
    shape = (27, 64, 64)
    label = torch.zeros(shape, dtype=torch.bool)
    label[10:13, 40:50, 40:50] = number % 2 == 0
    maps = torch.rand(shape, generator=generator) ** 8 + 0.6 * label
    return Case(
        study=f"s{number}",
        subject=f"p{number}",
        image=torch.rand(shape, generator=generator),
        anomaly_map=maps / (1 + maps),
        label=label,
        foreground=torch.ones(shape, dtype=torch.bool),
        numbers=torch.arange(shape[0]),
        scores=maps.flatten(1).amax(dim=1),
        abnormal=label.flatten(1).any(dim=1),
    )


def test_a_map_that_is_not_calibrated_is_refused() -> None:
    case = volume_case("far_1", lesion=True, shift=7.0)
    with pytest.raises(InputError, match=r"far_1: map values from 7.* to 7.8.*lies in \[0, 1\]"):
        evaluate_cases([case], thresholds=LEVELS)


@pytest.mark.slow
def test_one_class_gives_nan_and_says_so() -> None:
    cases = [volume_case(f"p{i}", lesion=False, seed=i) for i in range(2)]
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5)
    assert math.isnan(_value(evaluation, "image_auroc"))
    assert any("All slices are normal" in remark for remark in evaluation.remarks)
    json.dumps(evaluation.as_json(), allow_nan=False)


@pytest.mark.slow
def test_all_baselines_that_do_as_well_are_told_in_one_sentence() -> None:
    cases = _cohort()
    for case in cases:
        case.image[case.label] = 5.0  # lesions simply shine
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5)
    assert evaluation.baselines["intensity"]["image_auroc"] == 1
    (told,) = (remark for remark in evaluation.remarks if "baseline" in remark)
    assert told.startswith(
        "The model does not beat every trivial baseline: intensity (slice AUROC 1.000"
    )
    assert "; foreground area (" not in told  # 0.5, which the model beats


@pytest.mark.slow
def test_a_model_better_than_all_baselines_gets_no_such_remark() -> None:
    cases = [volume_case(f"p{i}", lesion=True, seed=i) for i in range(4)]
    for i, case in enumerate(cases):  # lesions at other heights, so that position tells nothing
        case.label = case.label.roll(i, dims=0)
        case.anomaly_map = case.anomaly_map.roll(i, dims=0)
        case.scores, case.abnormal = case.scores.roll(i), case.abnormal.roll(i)
    remarks = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5).remarks
    assert not any("baseline" in remark for remark in remarks)


@pytest.mark.slow
def test_slice_position_is_seen_through() -> None:
    cases = [volume_case(f"p{i}", lesion=True, seed=i) for i in range(4)]
    # Slices 2 and 3 of 0 to 5 are the two in the middle: the distance from it tells all.
    baselines = evaluate_cases(cases, bootstrap=5).baselines
    assert baselines["slice position"]["image_auroc"] == 1
    assert baselines["foreground area"]["image_auroc"] == 0.5


@pytest.mark.slow
def test_a_patient_scores_as_its_highest_study() -> None:
    cases = [
        volume_case("a_1", lesion=False),
        volume_case("a_2", lesion=True),
        volume_case("b_1", lesion=False, shift=0.1),
        volume_case("b_2", lesion=False),
    ]
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5)
    assert evaluation.counts["patients"] == 2
    assert _value(evaluation, "patient_auroc") == 1
    assert _value(evaluation, "study_auroc") == 1


@pytest.mark.slow
def test_abnormal_pictures_without_mask_are_left_out_of_pixels() -> None:
    with_mask, without = volume_case("a", lesion=True), volume_case("b", lesion=False)
    whole = Case(
        study="b",
        subject="b",
        image=without.image,
        anomaly_map=without.anomaly_map,
        label=without.label,
        foreground=without.foreground,
        numbers=without.numbers,
        scores=without.scores + 1,
        abnormal=torch.ones(6, dtype=torch.bool),
    )
    both = evaluate_cases([with_mask, whole], thresholds=LEVELS, bootstrap=5)
    alone = evaluate_cases([with_mask], thresholds=LEVELS, bootstrap=5)
    assert _value(both, "pixel_ap") == _value(alone, "pixel_ap")
    assert both.counts["abnormal_slices"] == 8
    assert any("6 abnormal slices have no mask" in r for r in both.remarks)


def test_pictures_have_no_patients_of_their_own() -> None:
    cases = []
    for i in range(6):
        label = blob() & torch.tensor(i % 2 == 0)
        cases.append(
            Case(
                study=f"screw/{i}",
                subject=f"screw/{i}",
                image=torch.rand(1, SIZE, SIZE),
                anomaly_map=(0.1 * torch.rand(SIZE, SIZE) + 0.8 * label)[None],
                label=label[None],
                foreground=torch.ones(1, SIZE, SIZE, dtype=torch.bool),
                numbers=torch.tensor([0]),
                scores=torch.tensor([0.9 if i % 2 == 0 else 0.1]),
                abnormal=torch.tensor([i % 2 == 0]),
                upright=True,
            )
        )
    evaluation = evaluate_cases(cases, bootstrap=20)
    assert set(evaluation.metrics) == {"slices", "pixels", "lesions"}
    assert _value(evaluation, "froc_score") == 1
    assert len(evaluation.slices) == len(evaluation.studies) == 6


def test_missing_slices_split_no_lesion_into_two() -> None:
    whole, gap = volume_case("a", lesion=True), volume_case("b", lesion=True)
    gap.numbers = torch.tensor([0, 2, 4, 6, 8, 10])
    evaluation = evaluate_cases([whole, gap], thresholds=LEVELS, bootstrap=5)
    assert evaluation.counts["lesions"] == 1
    assert math.isnan(evaluation.studies[1]["hd95_mm"])
    assert any("1 studies lack slices" in r for r in evaluation.remarks)


def test_healthy_studies_have_no_dice() -> None:
    healthy = volume_case("b", lesion=False, shift=0.3)  # flags voxels
    evaluation = evaluate_cases(
        [volume_case("a", lesion=True), healthy], thresholds=LEVELS, bootstrap=5
    )
    assert math.isnan(evaluation.studies[1]["dice"])
    assert _value(evaluation, "mean_dice") == 1
    assert math.isnan(_value(evaluate_cases([healthy], bootstrap=5), "dice"))


def test_nothing_known_of_any_pixel_leaves_slice_figures() -> None:
    case = volume_case("a", lesion=False)
    unmasked = Case(
        **{
            name: getattr(case, name)
            for name in Case.__dataclass_fields__
            if name not in ("masked", "abnormal")
        },
        abnormal=torch.ones(6),
    )
    evaluation = evaluate_cases([unmasked], bootstrap=5)
    assert evaluation.metrics["pixels"] == {}
    assert "foreground_pixel_auroc" not in evaluation.baselines["intensity"]
    assert _value(evaluation, "image_ap") == 1


def test_pictures_of_one_patient_make_patient_figures() -> None:
    cases = []
    for i in range(8):
        label = blob() & torch.tensor(i < 4)
        cases.append(
            Case(
                study=f"image{i}",
                subject=f"patient{i // 2}",
                image=torch.rand(1, SIZE, SIZE),
                anomaly_map=(0.1 * torch.rand(SIZE, SIZE) + 0.8 * label)[None],
                label=label[None],
                foreground=torch.ones(1, SIZE, SIZE, dtype=torch.bool),
                numbers=torch.tensor([0]),
                scores=torch.tensor([0.9 if i < 4 else 0.1]),
                abnormal=torch.tensor([i < 4]),
            )
        )
    evaluation = evaluate_cases(cases, bootstrap=20)
    assert _value(evaluation, "patient_auroc") == 1
    assert evaluation.counts["patients"] == 4
    assert "slice position" not in evaluation.baselines


def test_no_predictions_is_an_error() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        evaluate_cases([])


@pytest.mark.slow
def test_same_seed_gives_the_same_intervals() -> None:
    first, again, other = (
        evaluate_cases(_noisy(), thresholds=LEVELS, bootstrap=50, seed=seed).metrics["slices"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first["image_auroc"] != other["image_auroc"]


def _noisy() -> list[Case]:
    cases = _cohort(8)
    generator = torch.Generator().manual_seed(3)
    for case in cases:
        case.scores = torch.rand(6, generator=generator) + 0.3 * case.abnormal
    return cases


def _picture(name: str, category: str, *, defect: bool, score: float) -> Case:
    label = blob()[None] if defect else torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    return Case(
        study=name,
        subject=name,
        image=torch.rand(1, SIZE, SIZE),
        anomaly_map=score * torch.where(label | (not defect), 1.0, 0.5),
        label=label,
        foreground=torch.ones(1, SIZE, SIZE, dtype=torch.bool),
        numbers=torch.tensor([0]),
        scores=torch.tensor([score]),
        abnormal=torch.tensor([defect]),
        category=category,
    )


@pytest.mark.slow
def test_each_category_has_its_own_figures_and_there_is_a_mean() -> None:
    cases = [
        _picture("n0", "nut", defect=False, score=0.1),
        _picture("n1", "nut", defect=True, score=0.2),
        _picture("s0", "screw", defect=False, score=0.8),
        _picture("s1", "screw", defect=True, score=0.7),
        _picture("t0", "tile", defect=False, score=0.5),
    ]
    evaluation = evaluate_cases(cases, bootstrap=20)
    found = {name: own["image_auroc"] for name, own in evaluation.categories.items()}
    # Of "tile" no defect was tested: it has no figure and does not count in the mean.
    pooled = found.pop("pooled")
    assert found == {"nut": 1.0, "screw": 0.0, "tile": None, "mean": 0.5}
    assert evaluation.categories["nut"]["pixel_auroc"] == 1.0
    # Over all images it is another: of six pairs of defect and normal image three are in order.
    assert pooled == _value(evaluation, "image_auroc") == pytest.approx(3 / 6)
    assert evaluation.as_json()["categories"] == evaluation.categories
    assert evaluate_cases(cases[:2], bootstrap=20).categories == {}
