"""Metrics of whole evaluations, derived by hand or from scikit-learn."""

from __future__ import annotations

import gc
import json
import math
import re
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from sklearn.metrics import average_precision_score, roc_auc_score

from multiad_med.evaluation import Case, evaluate_cases
from multiad_med.evaluation.evaluate import RunningEvaluation
from multiad_med.testing.slice_caches import SIZE, blob, volume_case
from multiad_med.utils.errors import InputError
from tests.evaluation.cases import LEVELS, volume_cases


def _value(evaluation, name: str) -> float:
    return next(level[name].value for level in evaluation.metrics.values() if name in level)


@pytest.mark.slow
def test_a_perfect_map_gives_one_everywhere() -> None:
    evaluation = evaluate_cases(volume_cases(), thresholds=LEVELS, bootstrap=20)
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
def test_metrics_equal_scikit_learn_on_a_noisy_map() -> None:
    cases = volume_cases(6)
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


def test_pixels_outside_the_foreground_count_in_one_metric_only() -> None:
    cases = volume_cases(2)
    for case in cases:
        case.foreground = torch.zeros_like(case.foreground)
        case.foreground[:, :16] = True
        case.anomaly_map[:, 16:] = 0.9  # background that shines
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5)
    assert _value(evaluation, "foreground_pixel_auroc") == 1
    assert _value(evaluation, "pixel_auroc") < 0.6


def test_a_case_is_let_go_before_the_next_is_made() -> None:
    alive: list[weakref.ref[Case]] = []
    maps: list[weakref.ref[torch.Tensor]] = []

    def cases() -> Iterator[Case]:
        for case_of in (lambda i=i: volume_cases(i + 1)[i] for i in range(4)):
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
            # By type: isinstance() asks deprecated objects, which warn; those of exports have no values.
            if type(t) in (torch.Tensor, MetaTensor) and t.device.type == "cpu"
        }
        assert len(running) == count
        return sum(held.values())

    # From the seventh on no further slice is shown. A case has 1.1 MB, its histograms 82 kB.
    few, many = kept_after(7), kept_after(11)
    assert (many - few) / 4 < 120e3


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
    with pytest.raises(InputError, match=r"far_1: .*\b7.* 7\.8.*\[0, 1\]"):
        evaluate_cases([case], thresholds=LEVELS)


@pytest.mark.slow
def test_one_class_gives_nan_and_says_so() -> None:
    cases = [volume_case(f"p{i}", lesion=False, seed=i) for i in range(2)]
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5)
    assert math.isnan(_value(evaluation, "image_auroc"))
    assert any(re.search("[Aa]ll .*normal", remark) for remark in evaluation.remarks)
    json.dumps(evaluation.as_json(), allow_nan=False)


@pytest.mark.slow
def test_all_baselines_that_do_as_well_are_told_in_one_sentence() -> None:
    cases = volume_cases()
    for case in cases:
        case.image[case.label] = 5.0  # lesions simply shine
    evaluation = evaluate_cases(cases, thresholds=LEVELS, bootstrap=5)
    assert evaluation.baselines["intensity"]["image_auroc"] == 1
    (told,) = (remark for remark in evaluation.remarks if "baseline" in remark)
    assert re.search(r"not beat.*\bintensity \(slice AUROC 1\.000", told)
    assert "foreground area" not in told  # 0.5, which the model beats


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
def test_abnormal_images_without_mask_are_left_out_of_pixels() -> None:
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
    assert any(re.search(r"\b6 abnormal slices.*no mask", r) for r in both.remarks)


def test_images_have_no_patients_of_their_own() -> None:
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
    assert any(re.search(r"\b1 studies.*lack slices", r) for r in evaluation.remarks)


def test_healthy_studies_have_no_dice() -> None:
    healthy = volume_case("b", lesion=False, shift=0.3)  # flags voxels
    evaluation = evaluate_cases(
        [volume_case("a", lesion=True), healthy], thresholds=LEVELS, bootstrap=5
    )
    assert math.isnan(evaluation.studies[1]["dice"])
    assert _value(evaluation, "mean_dice") == 1
    assert math.isnan(_value(evaluate_cases([healthy], bootstrap=5), "dice"))


def test_nothing_known_of_any_pixel_leaves_slice_metrics() -> None:
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


def test_images_of_one_patient_make_patient_metrics() -> None:
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
    cases = volume_cases(8)
    generator = torch.Generator().manual_seed(3)
    for case in cases:
        case.scores = torch.rand(6, generator=generator) + 0.3 * case.abnormal
    return cases


def _image_case(name: str, category: str, *, defect: bool, score: float) -> Case:
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
def test_each_category_has_its_own_metrics_and_there_is_a_mean() -> None:
    cases = [
        _image_case("n0", "nut", defect=False, score=0.1),
        _image_case("n1", "nut", defect=True, score=0.2),
        _image_case("s0", "screw", defect=False, score=0.8),
        _image_case("s1", "screw", defect=True, score=0.7),
        _image_case("t0", "tile", defect=False, score=0.5),
    ]
    evaluation = evaluate_cases(cases, bootstrap=20)
    found = {name: own["image_auroc"] for name, own in evaluation.categories.items()}
    # Of "tile" no defect was tested: it has no metric and does not count in the mean.
    pooled = found.pop("pooled")
    assert found == {"nut": 1.0, "screw": 0.0, "tile": None, "mean": 0.5}
    assert evaluation.categories["nut"]["pixel_auroc"] == 1.0
    # Over all images it is another: of six pairs of defect and normal image three are in order.
    assert pooled == _value(evaluation, "image_auroc") == pytest.approx(3 / 6)
    assert evaluation.as_json()["categories"] == evaluation.categories
    assert evaluate_cases(cases[:2], bootstrap=20).categories == {}
