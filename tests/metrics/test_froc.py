"""FROC and its thresholds against numbers by hand, MONAI, and by properties."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_froc_curve_data, compute_froc_score
from torch import Tensor

from multiad_med.metrics import (
    FROC_RATES,
    Froc,
    false_positive_components,
    froc,
    lesion_scores,
    lesions,
    pooled_scans,
    scan_lesions,
)
from tests.metrics.scans import Scan, random_scan


def _froc(scans: Sequence[Scan], thresholds: Tensor, **options) -> Froc:
    found = [lesions(truth, spacing=(1, 1, 2)) for _, truth in scans]
    return froc(
        [lesion_scores(m, f) for (m, _), f in zip(scans, found, strict=True)],
        [false_positive_components(m, t, thresholds) for m, t in scans],
        thresholds,
        volumes=[f.volumes for f in found],
        **options,
    )


# ---------------------------------------------------------------- thresholds


def _pooled(*scans: Scan, **options) -> tuple[list[Tensor], list[Tensor], Tensor]:
    everywhere = [torch.ones_like(truth, dtype=torch.bool) for _, truth in scans]
    found = [scan_lesions(m, t, foreground=f) for (m, t), f in zip(scans, everywhere, strict=True)]
    return pooled_scans(found, **options)


def test_a_scans_thresholds_are_values_at_geometric_ranks() -> None:
    values = torch.arange(10_000.0).reshape(100, 100)
    scan = scan_lesions(
        values, torch.zeros(100, 100), foreground=torch.ones(100, 100), count=4, largest=0.1
    )
    assert scan.thresholds.tolist() == [9999, 9990, 9900, 9000]
    assert scan.flagged.tolist() == [1, 10, 100, 1000]
    assert scan.voxels == 10_000
    # Ever more of the last rows: one component at each threshold.
    assert scan.false_positives.tolist() == [1, 1, 1, 1]


def test_pooled_thresholds_are_at_geometric_ranks_of_all_scans() -> None:
    first = torch.arange(0.0, 20_000, 2).reshape(100, 100)
    second = first + 1
    nothing = torch.zeros(100, 100)
    _, _, thresholds = _pooled((first, nothing), (second, nothing), count=4, largest=0.05)
    exact = [19_999, 19_990, 19_900, 19_000]  # of ranks 1, 10, 100, 1000 among 20,000 values
    # A scan's own thresholds are a factor of 1.25 in rank apart.
    for threshold, value in zip(thresholds.tolist(), exact, strict=True):
        assert 20_000 - (20_000 - value) * 1.3 - 1 <= threshold <= value


def test_thresholds_follow_a_monotone_change() -> None:
    values = torch.rand(50, 100, generator=torch.Generator().manual_seed(0)).double()
    nothing = torch.zeros(50, 100)
    _, alarms, thresholds = _pooled((values, nothing))
    _, again, changed = _pooled(((3 * values).exp(), nothing))
    assert torch.equal((3 * thresholds).exp(), changed)
    assert torch.equal(alarms[0], again[0])


def test_a_constant_map_has_no_threshold_that_flags_anything() -> None:
    values = torch.full((4, 4, 4), 0.25)
    mask = torch.zeros(4, 4, 4)
    mask[0] = 1
    scores, alarms, thresholds = _pooled((values, mask))
    assert len(thresholds) == 1
    assert not (values >= thresholds).any()
    assert froc(scores, alarms, thresholds).score == 0


def test_a_map_of_two_values_keeps_the_upper_one() -> None:
    values = torch.zeros(10, 10)
    values[:3] = 1
    assert _pooled((values, torch.zeros(10, 10)))[2].tolist() == [1.0]


def test_a_scan_without_foreground_has_no_thresholds_and_misses_its_lesions() -> None:
    mask = torch.zeros(4, 4, 4)
    mask[0] = 1
    nothing = torch.zeros(4, 4, 4)
    empty = scan_lesions(torch.rand(4, 4, 4), mask, foreground=nothing)
    assert (len(empty.thresholds), empty.voxels) == (0, 0)
    other = scan_lesions(mask, mask, foreground=torch.ones(4, 4, 4))
    scores, alarms, thresholds = pooled_scans([empty, other])
    result = froc(scores, alarms, thresholds)
    assert result.lesions == 2
    assert result.score == 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_scans_reduced_one_by_one_give_the_froc_of_all_at_once(seed: int) -> None:
    """Maps of few values lose nothing when each is rounded down to thresholds of its own."""
    scans = [random_scan(seed + i, levels=6) for i in range(3)]
    scores, alarms, thresholds = _pooled(*scans, largest=0.5)
    ours, exact = froc(scores, alarms, thresholds), _froc(scans, thresholds)
    reached = thresholds > thresholds.min()  # a scan's own thresholds end at half of its voxels
    for name in ("sensitivity", "false_positives"):
        assert np.array_equal(
            np.array(getattr(ours, name))[reached], np.array(getattr(exact, name))[reached]
        )


# ---------------------------------------------------------------- FROC


def test_froc_by_hand() -> None:
    result = froc(
        [torch.tensor([0.9, 0.4]), torch.tensor([])],
        [torch.tensor([0, 1, 3]), torch.tensor([1, 4, 0])],
        torch.tensor([0.8, 0.5, 0.3]),
    )
    assert result.lesions == result.scans == 2
    assert result.thresholds == pytest.approx((0.8, 0.5, 0.3))
    # 5 false positives at 0.5 and 3 at 0.3: the lower threshold inherits the 5.
    assert result.false_positives == (0.5, 2.5, 2.5)
    assert result.sensitivity == (0.5, 0.5, 1.0)
    assert result.at_rates == {0.25: 0.0, 0.5: 0.5, 1.0: 0.5, 2.0: 0.5, 4.0: 1.0, 8.0: 1.0}
    assert result.score == pytest.approx((4 - 0.5) / 6)


def test_flagging_everything_is_not_rewarded() -> None:
    """All in one component that holds the lesion: no false positive, every lesion, and no merit."""
    values = torch.rand(12, 12, 12, generator=torch.Generator().manual_seed(0))
    truth = torch.zeros(12, 12, 12)
    truth[10, 10, 10] = 1
    values[10, 10, 10] = 0
    thresholds = torch.linspace(0, 1, 100)
    counts = false_positive_components(values, truth, thresholds)
    assert counts[0] == 0
    assert counts.max() > 8
    assert _froc([(values, truth)], thresholds).score == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_perfect_maps_score_1(seed: int) -> None:
    scans = [
        (truth.float() + 0.0, truth) for _, truth in (random_scan(seed), random_scan(seed + 1))
    ]
    result = froc(*_pooled(*scans))
    assert result.score == 1
    assert set(result.at_rates) == set(FROC_RATES)
    assert result.false_positives == (0,)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_monotone_change_of_maps_and_thresholds_changes_nothing(seed: int) -> None:
    scans = [random_scan(seed + i, levels=30) for i in range(3)]
    thresholds = torch.cat([m.flatten() for m, _ in scans]).unique().flip(0)[:15]
    before = _froc(scans, thresholds)
    after = _froc([((m / 7).exp(), t) for m, t in scans], (thresholds / 7).exp())
    assert before.at_rates == after.at_rates
    assert before.sensitivity == after.sensitivity
    assert before.false_positives == after.false_positives


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_thresholds_does_not_matter_and_curves_rise(seed: int) -> None:
    scans = [random_scan(seed + i) for i in range(3)]
    thresholds = torch.arange(9.0)
    shuffled = thresholds[torch.randperm(9, generator=torch.Generator().manual_seed(seed))]
    result = _froc(scans, thresholds)
    assert result == _froc(scans, shuffled)
    for curve in (result.sensitivity, result.false_positives, tuple(result.at_rates.values())):
        assert list(curve) == sorted(curve)


def test_froc_equals_monai_where_each_detection_is_one_component() -> None:
    """Single voxels far apart, a distinct score each; every rate is a point of the curve."""
    rng = np.random.default_rng(0)
    scans, false, true = 4, [], []
    data = []
    for _ in range(scans):
        values, truth = np.zeros((2, 24, 12, 12), dtype=np.float32)
        places = np.argwhere(np.ones((12, 6, 6))) * 2
        places = places[rng.permutation(len(places))[:18]]
        for index, place in enumerate(places):
            score = rng.uniform(0.1, 1) + (0.3 if index < 6 else 0)
            values[tuple(place)] = score
            truth[tuple(place)] = index < 6
            (true if index < 6 else false).append(values[tuple(place)])
        data.append((torch.from_numpy(values), torch.from_numpy(truth)))
    curve = compute_froc_curve_data(np.array(false), np.array(true), len(true), scans)
    expected = compute_froc_score(*curve, eval_thresholds=FROC_RATES)
    thresholds = torch.tensor(sorted(false + true))
    ours = _froc(data, thresholds)
    assert 0.2 < ours.score < 0.95
    assert ours.score == pytest.approx(expected)


def test_only_lesions_of_a_size_can_be_counted() -> None:
    scores = [torch.tensor([0.9, 0.1]), torch.tensor([0.1])]
    counts = [torch.tensor([0]), torch.tensor([0])]
    volumes = [torch.tensor([50.0, 10.0]), torch.tensor([100.0])]

    def at(low: float, high: float) -> Froc:
        return froc(scores, counts, torch.tensor([0.5]), volumes=volumes, size_range=(low, high))

    assert (at(10, 100).score, at(10, 100).lesions) == (0.5, 2)
    assert (at(50, 51).score, at(50, 51).lesions) == (1.0, 1)
    assert (at(100, math.inf).score, at(100, math.inf).lesions) == (0.0, 1)
    assert math.isnan(at(60, 70).score)


def test_without_any_lesion_sensitivity_is_nan() -> None:
    result = froc([torch.tensor([])], [torch.tensor([3, 1])], torch.tensor([0.1, 0.2]))
    assert math.isnan(result.score)
    assert all(math.isnan(s) for s in (*result.sensitivity, *result.at_rates.values()))
    assert result.false_positives == (1, 3)


def test_a_lesion_outside_the_foreground_is_missed() -> None:
    truth = torch.zeros(4, 4)
    truth[0, 0] = 1
    scores = lesion_scores(torch.ones(4, 4), lesions(truth), foreground=1 - truth)
    assert scores.tolist() == [-math.inf]
    assert froc([scores], [torch.tensor([0])], torch.tensor([0.5])).score == 0
