"""AUPRO against a loop over thresholds and regions, and by properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label as components

from multiad_med.metrics import aupro


def _slow_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Threshold by threshold, region by region."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        flagged = maps >= threshold
        overlaps = []
        for m, f in zip(masks, flagged, strict=True):
            regions = components(m, connectivity=2)
            overlaps += [f[regions == r].mean() for r in range(1, regions.max() + 1)]
        points.append((float(flagged[masks == 0].mean()), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.001, 0.05, 0.3, 1.0]),
    st.sampled_from([2, 5, 12, 9999]),
)
def test_aupro_equals_a_slow_loop_with_ties(seed: int, limit: float, levels: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (3, 8, 8)).astype(np.float32) - 2
    masks = (rng.random((3, 8, 8)) < 0.25).astype(np.uint8)
    masks[0, 0, 0] = 1
    masks[2] = 0
    ours = aupro(list(torch.from_numpy(maps)), list(torch.from_numpy(masks)), fpr_limit=limit)
    assert ours == pytest.approx(_slow_aupro(maps, masks, limit), abs=1e-12)


def test_many_pixels_equal_one_sort_of_all() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 256, 256)).astype(np.float32)
    masks = np.zeros((4, 256, 256), bool)
    masks[1, 10:60, 10:60] = masks[1, 200:210, 100:150] = masks[3, 100:103, 5:9] = True
    maps += masks
    order = np.argsort(-maps.ravel(), kind="stable")
    weight = masks / 3.0
    weight[1, 10:60, 10:60] /= 2500
    weight[1, 200:210, 100:150] /= 500
    weight[3] /= 12
    fpr = np.cumsum(~masks.ravel()[order]) / (~masks).sum()
    pro = np.cumsum(weight.ravel()[order])
    kept = fpr <= 0.3
    expected = np.trapezoid(pro[kept], fpr[kept]) / 0.3
    assert aupro(maps, masks) == pytest.approx(expected, abs=1e-5)
    assert aupro(maps.astype(np.float64), masks) == aupro(maps, masks)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_monotone_maps_leave_it_unchanged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.integers(-4, 5, (2, 8, 8)).astype(np.float64))
    masks = torch.from_numpy(rng.random((2, 8, 8)) < 0.3)
    a, b = aupro(maps, masks), aupro(maps.exp() - 7, masks)
    assert a == b or (math.isnan(a) and math.isnan(b))


def test_perfect_map_scores_1_and_diagonal_neighbours_are_one_region() -> None:
    mask = torch.eye(6)
    assert aupro([mask], [mask]) == pytest.approx(1)
    # Half of the diagonal found before any false positive: one region, overlap 0.5 at once.
    half = mask.clone()
    half[3:] = 0
    off = 0.5 * (1 - mask)
    expected = _slow_aupro((half + off)[None].numpy(), mask[None].numpy(), 0.3)
    assert aupro([half + off], [mask]) == pytest.approx(expected)
    assert expected > 0.45


def test_constant_map_scores_half_the_limit() -> None:
    assert aupro([torch.ones(8, 8)], [torch.eye(8)]) == pytest.approx(0.15)


def test_images_may_differ_in_size_and_regions_end_with_the_image() -> None:
    top, bottom = torch.zeros(4, 5), torch.zeros(3, 7)
    top[-1] = 1
    bottom[0] = 1
    found = [top.clone(), torch.zeros(3, 7)]
    assert aupro(found, [top, bottom]) == pytest.approx(0.5 + 0.5 * 0.15)


def test_one_class_is_nan_not_a_crash() -> None:
    assert math.isnan(aupro([torch.rand(4, 4)], [torch.zeros(4, 4)]))
    assert math.isnan(aupro([torch.rand(4, 4)], [torch.ones(4, 4)]))


@pytest.mark.parametrize(
    ("maps", "masks", "limit", "message"),
    [
        ([], [], 0.3, "Got 0 maps and 0 masks"),
        ([torch.rand(3, 3)], [], 0.3, "Got 1 maps and 0 masks"),
        ([torch.rand(3, 3)], [torch.ones(4, 4)], 0.3, "differ in shape"),
        ([torch.rand(1, 3, 3)], [torch.ones(1, 3, 3)], 0.3, r"must be \(H, W\).*got \(1, 3, 3\)"),
        ([torch.rand(0, 3)], [torch.ones(0, 3)], 0.3, "at least one pixel"),
        ([torch.full((3, 3), math.nan)], [torch.eye(3)], 0.3, "9 scores are NaN"),
        ([torch.rand(3, 3)], [torch.eye(3) * math.nan], 0.3, "9 labels are NaN"),
        ([torch.rand(3, 3)], [torch.eye(3)], 0, r"lie in \(0, 1\]"),
        ([torch.rand(3, 3)], [torch.eye(3)], math.nan, r"lie in \(0, 1\]"),
    ],
)
def test_wrong_maps_are_refused(maps, masks, limit: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aupro(maps, masks, fpr_limit=limit)
