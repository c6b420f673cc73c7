"""Lesions, false positives and FROC against numbers by hand, slow loops, MONAI, and by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from multiad_med.metrics import (
    ScanLesions,
    false_positive_components,
    froc,
    lesion_scores,
    lesions,
    pooled_scans,
    scan_lesions,
)
from tests.metrics.scans import random_scan

# ---------------------------------------------------------------- lesions


def test_lesions_touching_at_a_corner_are_one_and_volumes_are_in_mm3() -> None:
    truth = torch.zeros(6, 6, 6)
    truth[0, 0, 0] = truth[1, 1, 1] = 3
    truth[4, 4, 3:] = 1
    found = lesions(truth, spacing=(0.5, 2, 3))
    assert found.voxels.tolist() == [2, 3]
    assert found.volumes.tolist() == [6.0, 9.0]
    assert found.labels[1, 1, 1] == found.labels[0, 0, 0] == 1
    assert torch.equal(found.labels > 0, truth > 0)
    assert lesions(truth).volumes.tolist() == [2.0, 3.0]


def test_lesions_in_2d_are_8_connected_with_areas_in_mm2() -> None:
    found = lesions(torch.eye(5), spacing=(0.5, 0.4))
    assert found.voxels.tolist() == [5]
    assert found.volumes.tolist() == pytest.approx([1.0])


def test_no_lesion_is_no_error() -> None:
    found = lesions(torch.zeros(3, 3, 3), spacing=(1, 1, 1))
    assert len(found.voxels) == len(found.volumes) == 0
    assert lesion_scores(torch.rand(3, 3, 3), found).shape == (0,)


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (9, 1), (10, 1), (11, 2), (30, 3), (70, 7)])
def test_a_tenth_of_a_lesion_is_enough(size: int, needed: int) -> None:
    values = torch.arange(size + 2).float()[None]
    truth = torch.ones(1, size + 2)
    truth[0, -2:] = 0
    score = lesion_scores(values, lesions(truth))
    assert score.tolist() == [size - needed]


def test_needed_voxels_are_not_rounded_up_by_floating_point() -> None:
    score = lesion_scores(torch.arange(100.0)[None], lesions(torch.ones(1, 100)), overlap=0.07)
    assert score.tolist() == [93]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.001, 0.1, 0.25, 0.5, 1.0]))
def test_scores_equal_the_rule_at_every_threshold(seed: int, overlap: float) -> None:
    values, truth = random_scan(seed)
    foreground = torch.from_numpy(np.random.default_rng(seed + 1).random(values.shape) < 0.8)
    found = lesions(truth)
    scores = lesion_scores(values, found, overlap=overlap, foreground=foreground)
    for number, score in enumerate(scores, 1):
        inside = found.labels == number
        for threshold in values.unique():
            flagged = (values >= threshold) & foreground & inside
            detected = int(flagged.sum()) / int(inside.sum()) >= overlap
            assert detected == bool(score >= threshold)


# ---------------------------------------------------------------- false positives


def test_false_positives_by_hand() -> None:
    values = torch.zeros(9, 9, 9)
    truth = torch.zeros(9, 9, 9)
    truth[0, 0, 0:2] = 1
    values[0, 0, 1:4] = 5  # reaches into the lesion
    values[4, 4, 4] = values[5, 5, 5] = 4  # touch at a corner: one
    values[8, 8, 8] = 3
    values[0, 8, 0] = 2  # outside the foreground
    thresholds = torch.tensor([3.0, 6.0, 2.0, 5.0, 0.0, 4.0])
    counts = false_positive_components(values, truth, thresholds)
    assert counts.tolist() == [2, 0, 3, 0, 0, 1]
    foreground = torch.ones(9, 9, 9)
    foreground[0, 8] = 0
    inside = false_positive_components(values, truth, thresholds, foreground=foreground)
    assert inside.tolist() == [2, 0, 2, 0, 0, 1]
    assert false_positive_components(values, 0 * truth, thresholds).tolist() == [3, 0, 4, 1, 1, 2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_false_positives_equal_a_slow_loop(seed: int, flat: bool) -> None:
    values, truth = random_scan(seed, shape=(9, 8) if flat else (7, 6, 5))
    foreground = np.random.default_rng(seed + 1).random(values.shape) < 0.7
    thresholds = values.unique() + 0.5
    expected = []
    for threshold in thresholds:
        flagged = (values >= threshold).numpy() & foreground
        labels, count = ndimage.label(flagged, ndimage.generate_binary_structure(values.ndim, 3))
        expected.append(
            sum(not truth.numpy()[labels == number].any() for number in range(1, count + 1))
        )
    ours = false_positive_components(
        values, truth, thresholds, foreground=torch.from_numpy(foreground)
    )
    assert ours.tolist() == expected


# ---------------------------------------------------------------- refusals


def _scan_of(value: float, **options) -> ScanLesions:
    mask = torch.eye(3)
    values = torch.zeros(3, 3)
    values[0, 0] = value
    return scan_lesions(values, mask, foreground=torch.ones(3, 3), **options)


ONE = torch.tensor([0.5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lesions(torch.ones(2, 2, 2, 2)), r"lesion mask must be \(H, W\) or"),
        (lambda: lesions(torch.full((2, 2), math.nan)), "4 labels are NaN"),
        (lambda: lesions(torch.ones(2, 2), spacing=(1, 1, 1)), "spacing must be 2 positive"),
        (lambda: lesion_scores(torch.rand(3, 3), lesions(torch.ones(3, 4))), "differ in shape"),
        (
            lambda: lesion_scores(torch.full((3, 3), math.nan), lesions(torch.ones(3, 3))),
            "9 scores are NaN",
        ),
        (
            lambda: lesion_scores(torch.rand(3, 3), lesions(torch.eye(3)), overlap=0),
            r"overlap must lie in \(0, 1\], got 0",
        ),
        (
            lambda: lesion_scores(
                torch.rand(3, 3), lesions(torch.eye(3)), foreground=torch.ones(2, 2)
            ),
            r"foreground \(2, 2\) differ in shape",
        ),
        (lambda: false_positive_components(torch.rand(3), torch.rand(3), ONE), r"map must be \(H"),
        (
            lambda: false_positive_components(torch.rand(3, 3), torch.ones(2, 2), ONE),
            r"lesion mask \(2, 2\) differ in shape",
        ),
        (
            lambda: false_positive_components(torch.rand(3, 3), torch.eye(3), torch.tensor([])),
            "thresholds.*vector.*finite",
        ),
        (
            lambda: false_positive_components(
                torch.rand(3, 3), torch.eye(3), torch.tensor([math.nan])
            ),
            "thresholds.*vector.*finite",
        ),
        (lambda: _scan_of(math.inf), "1 scores are NaN or inf"),
        (lambda: _scan_of(0.5, count=0), "count must be 1 or more, got 0"),
        (lambda: _scan_of(0.5, largest=0), r"largest must lie in \(0, 1\], got 0"),
        (lambda: pooled_scans([]), "No scan has foreground"),
        (lambda: pooled_scans([_scan_of(0.5)], count=0), "count must be 1 or more, got 0"),
        (lambda: pooled_scans([_scan_of(0.5)], largest=1), r"largest must lie in \(0, 1\), got 1"),
        (lambda: froc([], [], ONE), "lesion scores of 0 scans"),
        (lambda: froc([ONE], [], ONE), "false positives of 0"),
        (lambda: froc([ONE], [torch.tensor([1, 2])], ONE), "needs 1 false-positive counts"),
        (lambda: froc([torch.tensor([math.nan])], [ONE], ONE), "score is NaN"),
        (lambda: froc([ONE], [ONE], ONE, size_range=(0, 1)), "size_range needs the volume"),
        (
            lambda: froc([ONE], [ONE], ONE, volumes=[torch.ones(2)], size_range=(0, 1)),
            "size_range needs the volume",
        ),
        (
            lambda: froc([ONE], [ONE], ONE, volumes=[ONE], size_range=(2, 1)),
            r"low < high, got \(2, 1\)",
        ),
    ],
)
def test_wrong_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
