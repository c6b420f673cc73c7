"""Resamples against literal repetition, intervals in a simulation, by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from multiad_med.metrics import (
    Ranking,
    SubjectHistograms,
    bootstrap,
    bootstrap_froc,
    bootstrap_mean,
    bootstrap_ranking,
    froc,
    interval,
    paired_difference,
    resamples,
)

NAMES = ("auroc", "average_precision", "f1_max")


def _items(seed: int, *, items: int = 40, subjects: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Scores with ties, labels and subjects."""
    rng = np.random.default_rng(seed)
    labels = rng.random(items) < 0.3
    scores = rng.integers(0, 7, items) + 2 * labels
    return (
        torch.from_numpy(scores).float(),
        torch.from_numpy(labels),
        torch.from_numpy(rng.integers(0, subjects, items)),
    )


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, abs=1e-12)


# ---------------------------------------------------------------- resamples


def test_resamples_draw_with_replacement_and_repeat_with_the_seed() -> None:
    weights = resamples(30, count=2000, seed=3)
    assert weights.shape == (2000, 30)
    assert (weights.sum(1) == 30).all()
    assert torch.equal(weights, resamples(30, count=2000, seed=3))
    assert not torch.equal(weights, resamples(30, count=2000, seed=4))
    # A subject is left out with probability (1 - 1/30)^30.
    assert float((weights == 0).double().mean()) == pytest.approx((29 / 30) ** 30, abs=0.01)
    assert resamples(1, count=2).tolist() == [[1], [1]]


# ---------------------------------------------------------------- intervals


def test_interval_is_made_of_percentiles() -> None:
    estimate = interval(torch.arange(1001.0), 400, subjects=30, level=0.9)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((400, 50, 950))


def test_undefined_resamples_are_left_out_up_to_a_half() -> None:
    values = torch.tensor([1.0, math.nan, 3.0, math.nan])
    half = interval(values, 2, subjects=3, level=0.5)
    assert (half.low, half.high) == (1.5, 2.5)
    values[0] = math.nan
    less = interval(values, 2, subjects=3)
    assert less.value == 2
    assert math.isnan(less.low)
    assert math.isnan(less.high)


def test_one_subject_has_no_interval() -> None:
    weights = resamples(1, count=50)
    estimate = interval(bootstrap_mean(torch.tensor([0.7]), weights), 0.7, subjects=1)
    assert estimate.value == 0.7
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Slices of a patient share an offset: drawing patients covers, drawing slices does not."""
    rng = np.random.default_rng(0)
    patients, slices, rounds = 40, 10, 200
    owner = torch.arange(patients).repeat_interleave(slices)
    by_patient, by_slice = resamples(patients, count=300), resamples(patients * slices, count=300)
    covered = {"mean": 0, "patients": 0, "slices": 0}
    labels = torch.from_numpy(np.arange(patients) % 2).repeat_interleave(slices)
    # Normal scores ~ N(0, 1 + 1), anomalous ~ N(1, 1 + 1): AUROC = Phi(1 / sqrt(4)).
    truth = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))
    for _ in range(rounds):
        offset = torch.from_numpy(rng.standard_normal(patients))
        mean = interval(bootstrap_mean(offset, by_patient), float(offset.mean()), subjects=patients)
        covered["mean"] += mean.low <= 0 <= mean.high
        scores = labels + offset[owner] + torch.from_numpy(rng.standard_normal(len(owner)))
        for name, column, weights in (
            ("patients", owner, by_patient),
            ("slices", torch.arange(len(owner)), by_slice),
        ):
            values = bootstrap_ranking(scores, labels, column, weights)["auroc"]
            found = interval(values, 0.5, subjects=weights.shape[1])
            covered[name] += found.low <= truth <= found.high
    assert 0.89 <= covered["mean"] / rounds <= 0.99
    assert 0.87 <= covered["patients"] / rounds <= 0.99
    assert covered["slices"] / rounds < 0.75


# ---------------------------------------------------------------- items


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_ranking_equals_literally_repeated_items(seed: int) -> None:
    scores, labels, subjects = _items(seed, items=12)
    weights = resamples(5, count=20, seed=seed)
    ours = bootstrap_ranking(scores, labels, subjects, weights)
    for row, drawn in enumerate(weights):
        times = drawn[subjects]
        if not times.any():
            assert all(math.isnan(ours[name][row]) for name in NAMES)
            continue
        ranking = Ranking(scores.repeat_interleave(times), labels.repeat_interleave(times))
        for name in NAMES:
            assert _same(float(ours[name][row]), getattr(ranking, name))


def test_ranking_equals_scikit_learn_with_weights() -> None:
    scores, labels, subjects = _items(0, items=500, subjects=20)
    weights = resamples(20, count=5)
    ours = bootstrap_ranking(scores, labels, subjects, weights)
    for row, drawn in enumerate(weights):
        arguments = {"y_true": labels, "y_score": scores, "sample_weight": drawn[subjects]}
        assert float(ours["auroc"][row]) == pytest.approx(roc_auc_score(**arguments))
        precision = average_precision_score(**arguments)
        assert float(ours["average_precision"][row]) == pytest.approx(precision)


def test_chunks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, subjects = _items(1)
    histograms = SubjectHistograms(scores.unique())
    for subject in range(5):
        histograms.update(subject, scores[subjects == subject], labels[subjects == subject])
    weights = resamples(5, count=37)
    whole = bootstrap_ranking(scores, labels, subjects, weights), histograms.metrics(weights)
    monkeypatch.setattr(bootstrap, "_CHUNK", 100)
    parts = bootstrap_ranking(scores, labels, subjects, weights), histograms.metrics(weights)
    for a, b in zip(whole, parts, strict=True):
        for name in NAMES:
            assert torch.equal(a[name], b[name])


def test_one_class_is_nan() -> None:
    weights, subjects = resamples(2, count=4), torch.tensor([0, 1])
    normal = bootstrap_ranking(torch.rand(2), torch.zeros(2), subjects, weights)
    assert all(values.isnan().all() for values in normal.values())
    anomalous = bootstrap_ranking(torch.rand(2), torch.ones(2), subjects, weights)
    assert anomalous["auroc"].isnan().all()
    assert (anomalous["f1_max"] == 1).all()


def test_mean_leaves_out_subjects_without_a_number() -> None:
    values = torch.tensor([0.2, math.nan, 0.8])
    weights = torch.tensor([[1, 1, 1], [2, 1, 0], [0, 3, 0], [1, 0, 2]])
    means = bootstrap_mean(values, weights)
    assert means[[0, 1, 3]].tolist() == pytest.approx([0.5, 0.2, 0.6])
    assert math.isnan(means[2])


def test_froc_equals_literally_repeated_scans() -> None:
    rng = np.random.default_rng(0)
    thresholds = torch.linspace(0.1, 1, 6)
    owner = torch.tensor([0, 0, 1, 2, 3, 3])
    scores = [torch.from_numpy(rng.random(n)) for n in (2, 0, 3, 0, 1, 4)]
    volumes = [torch.from_numpy(rng.random(len(s))) for s in scores]
    counts = [torch.from_numpy(rng.integers(0, 6, 6)) for _ in scores]
    weights = resamples(4, count=30)
    options = {"volumes": volumes, "size_range": (0.2, 1.0), "rates": (0.5, 1, 3)}
    ours = bootstrap_froc(scores, counts, thresholds, owner, weights, **options)
    for row, drawn in enumerate(weights):
        scans = [i for i in range(len(owner)) for _ in range(int(drawn[owner[i]]))]
        options["volumes"] = [volumes[i] for i in scans]
        literal = froc(
            [scores[i] for i in scans], [counts[i] for i in scans], thresholds, **options
        )
        assert _same(float(ours[row]), literal.score)


# ---------------------------------------------------------------- pairs


def _mean_of(values: Tensor):
    return lambda weights: bootstrap_mean(values, weights)


def test_difference_uses_the_same_draws_for_both() -> None:
    rng = np.random.default_rng(0)
    hard = torch.from_numpy(rng.standard_normal(50))
    better = hard + 0.1 + 0.05 * torch.from_numpy(rng.standard_normal(50))
    names, weights = [str(i) for i in range(50)], resamples(50)
    estimate, p = paired_difference(
        _mean_of(better), _mean_of(hard), weights, subjects=(names, names)
    )
    assert estimate.value == pytest.approx(float((better - hard).mean()))
    assert estimate.low > 0.07
    assert estimate.high < 0.13
    assert p == pytest.approx(2 / 1001)
    reverse, again = paired_difference(
        _mean_of(hard), _mean_of(better), weights, subjects=(names, names)
    )
    assert (reverse.low, reverse.high, again) == (-estimate.high, -estimate.low, p)


def test_a_model_does_not_differ_from_itself() -> None:
    values, names = torch.rand(20), [str(i) for i in range(20)]
    estimate, p = paired_difference(
        _mean_of(values), _mean_of(values), resamples(20), subjects=(names, names)
    )
    assert (estimate.value, estimate.low, estimate.high, p) == (0, 0, 0, 1)


def test_p_values_of_equal_models_are_about_uniform() -> None:
    rng = np.random.default_rng(0)
    weights, names = resamples(40, count=300), [str(i) for i in range(40)]
    p = [
        paired_difference(_mean_of(a), _mean_of(b), weights, subjects=(names, names))[1]
        for a, b in torch.from_numpy(rng.standard_normal((300, 2, 40)))
    ]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.1
    assert 0.4 < np.mean(p) < 0.6


def test_difference_over_one_subject_is_undefined() -> None:
    estimate, p = paired_difference(
        _mean_of(torch.ones(1)), _mean_of(torch.zeros(1)), resamples(1), subjects=(["a"], ["a"])
    )
    assert estimate.value == 1
    assert math.isnan(estimate.low)
    assert math.isnan(p)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["a", "b"], ["a", "c"], r"2 are of one only, as \['b', 'c'\]"),
        (["a", "b"], ["a"], r"1 are of one only, as \['b'\]"),
        (["a", "b"], ["b", "a"], "the order differs"),
        (["a", "a"], ["a", "a"], "appears twice"),
        (["a", "b", "c"], ["a", "b", "c"], r"weights must be \(resamples, 3\)"),
    ],
)
def test_models_on_different_subjects_are_not_compared(first, second, message: str) -> None:
    metric = _mean_of(torch.rand(2))
    with pytest.raises(ValueError, match=message):
        paired_difference(metric, metric, resamples(2), subjects=(first, second))


# ---------------------------------------------------------------- refusals

W = resamples(2, count=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resamples(0), "At least one subject and one resample"),
        (lambda: resamples(3, count=0), "At least one subject and one resample"),
        (lambda: interval(torch.ones(3), 1, subjects=2, level=1), r"level must lie in \(0, 1\)"),
        (lambda: interval(torch.ones(0), 1, subjects=2), "one number per resample"),
        (lambda: interval(torch.ones(2, 2), 1, subjects=2), "one number per resample"),
        (lambda: interval(torch.ones(3), 1, subjects=0), "subjects must be 1 or more"),
        (
            lambda: bootstrap_ranking(torch.rand(2), torch.ones(3), torch.tensor([0, 1]), W),
            "differ in shape",
        ),
        (
            lambda: bootstrap_ranking(torch.rand(0), torch.ones(0), torch.zeros(0).long(), W),
            "vector of one number or more",
        ),
        (
            lambda: bootstrap_ranking(
                torch.tensor([math.nan, 1]), torch.ones(2), torch.tensor([0, 1]), W
            ),
            "1 scores are NaN",
        ),
        (
            lambda: bootstrap_ranking(torch.rand(2), torch.ones(2), torch.tensor([0, 2]), W),
            "0 to 1, got 0 to 2",
        ),
        (
            lambda: bootstrap_ranking(torch.rand(2), torch.ones(2), torch.tensor([0.0, 1]), W),
            "whole number per item",
        ),
        (
            lambda: bootstrap_ranking(torch.rand(2), torch.ones(2), torch.tensor([0]), W),
            r"shape \(2,\)",
        ),
        (
            lambda: bootstrap_ranking(torch.rand(2), torch.ones(2), torch.tensor([0, 1]), W[0]),
            "weights must be",
        ),
        (lambda: bootstrap_mean(torch.rand(3), W), r"weights must be \(resamples, 3\)"),
        (lambda: bootstrap_mean(torch.rand(2, 2), W), "a number per subject"),
        (
            lambda: bootstrap_froc([torch.rand(1)], [], torch.ones(1), torch.tensor([0]), W),
            "false positives of 0",
        ),
    ],
)
def test_wrong_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
