"""Scores and thresholds by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multiad_med.scoring import LargestValues, image_scores, threshold_at_false_positive_rate


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
    ("values", "rate", "expected"),
    [
        (range(1, 101), 0.05, 96.0),  # 96 to 100 are flagged: 5 of 100
        (range(1, 101), 0.01, 100.0),
        (range(1, 11), 0.25, 9.0),  # floor(2.5) = 2 of 10
    ],
)
def test_threshold_by_hand(values: range, rate: float, expected: float) -> None:
    ordered = torch.tensor(sorted(values, reverse=True), dtype=torch.float)
    assert threshold_at_false_positive_rate(ordered, len(ordered), rate) == expected


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 1.0], [3.0, 2.0]])
def test_threshold_lies_above_all_where_ties_or_few_values_allow_none(values: list[float]) -> None:
    threshold = threshold_at_false_positive_rate(torch.tensor(values), len(values), 0.3)
    assert threshold > max(values)


@given(
    st.lists(st.floats(0, 100, width=32), min_size=1, max_size=60),
    st.floats(0.01, 0.9),
)
def test_at_most_the_rate_is_flagged_and_a_lower_value_would_flag_more(
    values: list[float], rate: float
) -> None:
    data = torch.tensor(values).sort(descending=True).values
    threshold = threshold_at_false_positive_rate(data, len(values), rate)
    allowed = math.floor(rate * len(values))
    assert int((data >= threshold).sum()) <= allowed
    below = data[data < threshold]
    if below.numel():
        assert int((data >= below.max()).sum()) > allowed


@given(st.lists(st.lists(st.floats(-10, 10, width=32), max_size=20), max_size=8), st.integers(1, 9))
def test_largest_values_of_a_stream_equal_those_of_all(
    chunks: list[list[float]], count: int
) -> None:
    stream = LargestValues(count)
    for chunk in chunks:
        stream.update(torch.tensor(chunk))
    everything = sorted((v for chunk in chunks for v in chunk), reverse=True)
    assert stream.values.tolist() == everything[:count]
