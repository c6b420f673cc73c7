"""sPRO by hand, against a loop over thresholds and regions, and against AUPRO."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiad_med.metrics import Region, StreamingSpro, aupro, spro
from multiad_med.utils.errors import InputError

_Regions = list[list[Region]]


def _slow_spro(maps: np.ndarray, regions: _Regions, limit: float) -> float:
    """Threshold by threshold, region by region."""
    inside = np.zeros(maps.shape, bool)
    for image, own in zip(inside, regions, strict=True):
        for mask, _ in own:
            image |= mask > 0
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        overlaps = [
            min((image[mask > 0] >= threshold).sum() / saturation, 1)
            for image, own in zip(maps, regions, strict=True)
            for mask, saturation in own
        ]
        points.append((float((maps[~inside] >= threshold).mean()), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def _random(seed: int, levels: int) -> tuple[np.ndarray, _Regions]:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (3, 8, 8)).astype(np.float32)
    regions: _Regions = [[], [], []]
    for own in regions[:2]:
        for _ in range(2):
            mask = rng.random((8, 8)) < 0.3
            mask[0, 0] = True
            own.append(Region(mask, float(rng.uniform(0.5, mask.sum()))))
    return maps, regions


def test_two_regions_by_hand() -> None:
    # The first region is found with two of its four pixels, the second with its only one.
    first, second = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))
    first[0, 0] = second[0, 1, 0] = 1
    scores = np.array([[9.0, 7, 2, 1], [6, 8, 0, 0], [0, 0, 0, 0]])
    regions = [Region(first[0], 2), Region(second[0], 1)]
    # Of 7 normal pixels one scores 8. From the highest score down the curve goes through (0, 1/4) at 9,
    # (1/7, 1/4) at 8, (1/7, 1/2) at 7 and (1/7, 1) at 6.
    expected = (0.25 * 1 / 7 + 1.0 * 1 / 7) / (2 / 7)
    assert spro([scores], [regions], fpr_limit=2 / 7) == pytest.approx(expected)
    assert spro([scores], [regions], fpr_limit=1 / 7) == pytest.approx(0.25)


def test_one_pixel_saturates_and_the_rest_adds_nothing() -> None:
    mask = np.array([[1, 1, 1, 0]])
    scores = np.array([[3.0, 0, 0, 1]])
    assert spro([scores], [[Region(mask, 1)]], fpr_limit=1.0) == 1.0
    assert spro([scores], [[Region(mask, 3)]], fpr_limit=1.0) == pytest.approx(1 / 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.3, 1.0]), st.sampled_from([2, 5, 12, 9999]))
def test_spro_equals_a_slow_loop_with_ties_and_overlaps(
    seed: int, limit: float, levels: int
) -> None:
    maps, regions = _random(seed, levels)
    expected = _slow_spro(maps, regions, limit)
    assert spro(maps, regions, fpr_limit=limit) == pytest.approx(expected, abs=1e-12)
    streaming = StreamingSpro(fpr_limit=limit)
    for anomaly_map, own in zip(maps, regions, strict=True):
        streaming.update(anomaly_map, own)
    assert streaming.spro == pytest.approx(expected, abs=1e-9)


def test_saturation_at_the_whole_area_is_aupro() -> None:
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.random((2, 16, 16)))
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 2:6, 2:6] = masks[0, 10:12, 3:12] = True
    parts = [masks[0].copy(), masks[0].copy()]
    parts[0][8:], parts[1][:8] = False, False
    regions = [[Region(part, part.sum()) for part in parts], []]
    assert spro(list(maps), regions, fpr_limit=0.3) == pytest.approx(aupro(list(maps), masks))


def test_it_is_undefined_without_regions_or_normal_pixels() -> None:
    scores = np.zeros((2, 2))
    assert math.isnan(spro([scores], [[]]))
    assert math.isnan(spro([scores], [[Region(np.ones((2, 2)), 4)]]))


@pytest.mark.parametrize(
    ("mask", "saturation", "message"),
    [
        (np.zeros((2, 2)), 1, "0 pixels has the saturation 1"),
        (np.ones((2, 2)), 5, "4 pixels has the saturation 5"),
        (np.ones((2, 2)), 0, "saturation 0"),
        (np.ones((2, 2)), math.nan, "saturation nan"),
        (np.ones((2, 3)), 1, "differ in shape"),
    ],
)
def test_regions_that_cannot_be_are_refused(
    mask: np.ndarray, saturation: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        spro([np.zeros((2, 2))], [[Region(mask, saturation)]])


def test_numbers_and_limits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="Got 1 maps and regions of 2"):
        spro([np.zeros((2, 2))], [[], []])
    with pytest.raises(InputError, match="fpr_limit"):
        spro([np.zeros((2, 2))], [[]], fpr_limit=0)
