"""Scores and thresholds by hand."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multiad_med.scoring import (
    LargestValues,
    Level,
    NormalScores,
    image_scores,
    joint_map,
    joint_probability,
    largest_in_foreground,
    score_of_probability,
    threshold_at_false_positive_rate,
    unit_name,
)
from multiad_med.utils.errors import InputError


def test_score_is_the_maximum_or_the_mean_of_the_largest() -> None:
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    assert image_scores(maps).tolist() == [15]
    # A quarter of 16 pixels: 15, 14, 13, 12.
    assert image_scores(maps, fraction=0.25).tolist() == [13.5]


def test_score_counts_the_foreground_alone() -> None:
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    foreground = (maps < 10).to(torch.uint8)
    assert image_scores(maps, foreground).tolist() == [9]
    assert image_scores(maps, foreground, fraction=0.2).tolist() == [8.5]
    assert image_scores(maps, torch.zeros_like(maps)).tolist() == [0]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\], got 2"):
        image_scores(torch.zeros(1, 1, 2, 2), fraction=2)
    with pytest.raises(ValueError, match="differ in shape"):
        image_scores(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"\(0, 1\), got 1"):
        threshold_at_false_positive_rate(torch.ones(1), 1, 1.0)
    with pytest.raises(ValueError, match="no normal values"):
        threshold_at_false_positive_rate(torch.empty(0), 0, 0.1)


@pytest.mark.parametrize(
    ("values", "rate", "flagged"),
    [
        (range(1, 101), 0.05, 4),  # floor(0.05 * 101) = 5: just above the fifth largest
        (range(1, 100), 0.01, 0),  # floor(0.01 * 100) = 1: just above the largest
        (range(1, 20), 0.05, 0),  # 1 of 20
        (range(1, 11), 0.25, 1),  # floor(2.75) = 2 of 11
        (range(1, 100), 0.29, 28),  # 0.29 * 100 is 28.999999999999996
    ],
)
def test_threshold_by_hand(values: range, rate: float, flagged: int) -> None:
    ordered = torch.tensor(sorted(values, reverse=True), dtype=torch.float)
    threshold = threshold_at_false_positive_rate(ordered, len(ordered), rate)
    assert int((ordered >= threshold).sum()) == flagged
    assert threshold == pytest.approx(float(ordered[flagged]), abs=1e-4)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 1.0], [3.0, 2.0]])
def test_threshold_lies_above_all_where_ties_or_few_values_allow_none(values: list[float]) -> None:
    threshold = threshold_at_false_positive_rate(torch.tensor(values), len(values), 0.3)
    assert threshold > max(values)


def test_p_value_counts_the_normals_that_score_at_least_as_high() -> None:
    normals = NormalScores((0.1, 0.2, 0.2, 0.4), 0.5)
    expected = {0.5: 1 / 5, 0.4: 2 / 5, 0.3: 2 / 5, 0.2: 4 / 5, 0.1: 1.0, 0.0: 1.0}
    for score, p in expected.items():
        assert normals.p_value(score) == pytest.approx(p)
        assert normals.anomalous(score) is (p <= 0.5)


@pytest.mark.parametrize(
    ("count", "rate", "allowed"),
    [(19, 0.05, True), (18, 0.05, False), (99, 0.01, True), (98, 0.01, False), (9, 0.1, True)],
)
def test_a_rate_below_one_in_n_plus_one_is_out_of_reach(
    count: int, rate: float, allowed: bool
) -> None:
    normals = NormalScores(tuple(i / 100 for i in range(count)), rate)
    assert normals.anomalous(1.0) is (True if allowed else None)
    assert (normals.threshold is None) is not allowed
    assert (normals.no_verdict(Level.VOLUME) == "") is allowed
    assert normals.p_value(1.0) == pytest.approx(1 / (count + 1))


def test_no_verdict_says_what_is_needed() -> None:
    few = NormalScores((0.5,) * 6, 0.05).no_verdict(Level.VOLUME)
    assert re.search(r"^no verdict: 6 normal volumes\b.*\b14 %.*\b19\b.*\b5 %", few)
    none = NormalScores((), 0.01).no_verdict(Level.PATIENT)
    assert re.search(r"^no verdict: .*no held-out normal patients\b.*\b99\b.*\b1 %", none)


@given(
    st.lists(st.floats(0, 1, width=32), max_size=60),
    st.floats(0.01, 0.9),
    st.floats(0, 1, width=32),
)
def test_a_unit_is_anomalous_exactly_if_its_p_value_is_at_most_the_rate(
    values: list[float], rate: float, score: float
) -> None:
    normals = NormalScores(tuple(values), rate)
    p = (1 + sum(v >= score for v in values)) / (len(values) + 1)
    assert normals.p_value(score) == pytest.approx(p)
    if normals.threshold is None:
        assert rate < 1 / (len(values) + 1)
    elif abs(p - rate) > 1e-6:
        assert normals.anomalous(score) is (p <= rate)
        assert normals.anomalous(score) is (score >= normals.threshold)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_scores_survive_their_json_bit_by_bit(values: list[float]) -> None:
    normals = NormalScores(tuple(values), 0.05, "few")
    again = NormalScores.from_json(json.loads(json.dumps(normals.as_json())))
    assert again == normals
    assert [again.p_value(v) for v in values] == [normals.p_value(v) for v in values]


def test_of_many_scores_a_sample_is_kept() -> None:
    normals = NormalScores(tuple((torch.arange(30_000) / 30_000).tolist()), 0.05)
    assert normals.units == 10_000
    assert normals.p_value(0.95) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("scores", [(math.nan,), (0.5, math.inf)])
def test_scores_that_are_no_numbers_are_refused(scores: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="finite"):
        NormalScores(scores, 0.05)


@given(st.lists(st.lists(st.floats(-10, 10, width=32), max_size=20), max_size=8), st.integers(1, 9))
def test_largest_values_of_a_stream_equal_those_of_all(
    chunks: list[list[float]], count: int
) -> None:
    stream = LargestValues(count)
    for chunk in chunks:
        stream.update(torch.tensor(chunk))
    everything = sorted((v for chunk in chunks for v in chunk), reverse=True)
    assert stream.values.tolist() == everything[:count]


def test_an_image_of_a_product_is_called_an_image() -> None:
    units = [unit_name(level, "industrial") for level in Level]
    assert units == ["image", "image", "patient"]
    assert [unit_name(level, "brain_mri") for level in Level] == ["slice", "volume", "patient"]
    one = NormalScores((0.5,), 0.05).no_verdict("image")
    assert re.search(r"^no verdict: 1 normal image\b.*\b50 %.*\b19\b.*\b5 %", one)


def test_the_joint_probability_is_a_half_at_the_threshold_and_a_noisy_or_of_its_parts() -> None:
    def of(hazard: float) -> float:  # t = 1
        return joint_probability(hazard / (hazard + 1))

    assert of(0) == 0
    assert of(1) == pytest.approx(0.5)
    assert of(2) == pytest.approx(0.75)
    assert 1 - of(0.7 + 1.9) == pytest.approx((1 - of(0.7)) * (1 - of(1.9)), rel=1e-12)
    assert joint_probability(1.0) == 1


@pytest.mark.parametrize("score", [0.0, 0.25, 0.5, 0.9, 0.96])
def test_a_score_comes_back_from_its_probability(score: float) -> None:
    assert score_of_probability(joint_probability(score)) == pytest.approx(score, abs=1e-6)
    assert score_of_probability(1.0) == 1


def _value(hazard: float) -> float:
    """Of the calibrated map, where the threshold is 1."""
    return hazard / (hazard + 1)


def test_two_channels_are_joined_by_their_sum_before_the_threshold() -> None:
    maps = torch.tensor([[_value(3.0), _value(0.5)], [_value(1.0), _value(1.0)]])
    joint = joint_map(maps.reshape(1, 2, 1, 2))
    assert joint.shape == (1, 1, 1, 2)
    assert joint.flatten().tolist() == pytest.approx([0.8, 0.6])


def test_one_channel_is_its_own_joint_map() -> None:
    maps = torch.rand(2, 1, 4, 4)
    assert joint_map(maps) is maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_joint_map_is_finite_and_below_1_at_its_extremes(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 1e-30, 0.5, 1 - 6e-8, 1.0], dtype=dtype)
    maps = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    joint = joint_map(maps)
    assert joint.isfinite().all()
    assert float(joint[0, 0, 0, 0]) == 0.0
    assert (joint <= 1).all()
    # Neither part is above the whole, and a part of nothing changes nothing.
    assert (joint >= maps.amax(dim=1, keepdim=True) - 2e-7).all()
    torch.testing.assert_close(joint[0, 0, 0], values, atol=2e-7, rtol=0)


@given(
    st.integers(0, 10_000),
    st.floats(0, 20),
    st.sampled_from([0.0, 0.01, 0.1, 1.0]),
)
def test_the_mean_of_the_highest_joint_probabilities_is_the_noisy_or_of_its_parts(
    seed: int, semantic: float, fraction: float
) -> None:
    """The part of the whole image is the same for all places, so that it leaves the mean."""
    random = torch.Generator().manual_seed(seed)
    hazards = torch.rand(1, 1, 16, 16, generator=random, dtype=torch.float64) * 5
    plane = torch.full_like(hazards, semantic)
    maps = torch.cat([hazards, plane], dim=1)
    maps = maps / (maps + 1)

    def probabilities(of: Tensor) -> Tensor:
        return 1 - 2 ** (-of / (1 - of))

    joint, local, whole = (
        largest_in_foreground(probabilities(of), fraction=fraction)[0].mean()
        for of in (joint_map(maps), maps[:, :1], maps[:, 1:])
    )
    torch.testing.assert_close(joint, 1 - (1 - local) * (1 - whole), atol=1e-6, rtol=0)


def test_scores_count_the_second_channel_and_the_foreground_is_of_places() -> None:
    maps = torch.tensor([[_value(1.0), _value(9.0)], [_value(1.0), _value(1.0)]])
    maps = maps.reshape(1, 2, 1, 2)
    inside = torch.tensor([True, False]).reshape(1, 1, 1, 2)
    assert image_scores(maps, inside).tolist() == pytest.approx([_value(2.0)])
    assert image_scores(maps).tolist() == pytest.approx([_value(10.0)])
    assert image_scores(maps, torch.zeros_like(inside)).tolist() == [0.0]
