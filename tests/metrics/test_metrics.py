"""Metrics against scikit-learn, a slow loop, and by properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label as components
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from multiad_med.metrics import aupro, auroc, average_precision, f1_max

scored = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60)


@given(scored)
def test_ranking_metrics_equal_scikit_learn_with_ties(items: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(s) for s, _ in items])
    labels = torch.tensor([y for _, y in items])
    if labels.all() or not labels.any():
        assert math.isnan(auroc(scores, labels))
        return
    y, s = labels.numpy(), scores.numpy()
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(y, s), abs=1e-9)
    assert average_precision(scores, labels) == pytest.approx(
        average_precision_score(y, s), abs=1e-9
    )
    precision, recall, _ = precision_recall_curve(y, s)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    assert f1_max(scores, labels) == pytest.approx(f1.max(), abs=1e-9)


def test_large_input_equals_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(200_000, generator=generator)
    labels = torch.rand(200_000, generator=generator) < scores**4
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)


@given(scored)
def test_monotone_maps_leave_the_ranking_unchanged(items: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(s) for s, _ in items])
    labels = torch.tensor([y for _, y in items])
    for metric in (auroc, average_precision, f1_max):
        a, b = metric(scores, labels), metric(scores.exp() - 100, labels)
        assert a == b or (math.isnan(a) and math.isnan(b))


def test_one_class_is_nan_not_a_crash() -> None:
    scores = torch.rand(5)
    assert math.isnan(auroc(scores, torch.ones(5)))
    assert math.isnan(average_precision(scores, torch.zeros(5)))
    assert math.isnan(f1_max(scores, torch.zeros(5)))
    assert math.isnan(aupro([torch.rand(4, 4)], [torch.zeros(4, 4)]))
    assert math.isnan(aupro([torch.rand(4, 4)], [torch.ones(4, 4)]))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.rand(3), torch.rand(4), "differ in shape"),
        (torch.rand(0), torch.rand(0), "no scores"),
        (torch.tensor([1.0, math.nan]), torch.tensor([0, 1]), "1 scores are NaN"),
    ],
)
def test_wrong_rankings_are_refused(scores, labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auroc(scores, labels)


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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.3, 1.0]), st.integers(2, 12))
def test_aupro_equals_a_slow_loop_with_ties(seed: int, limit: float, levels: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, levels, (2, 8, 8)).astype(np.float32)
    masks = (rng.random((2, 8, 8)) < 0.25).astype(np.uint8)
    masks[0, 0, 0] = 1
    ours = aupro(list(torch.from_numpy(maps)), list(torch.from_numpy(masks)), fpr_limit=limit)
    assert ours == pytest.approx(_slow_aupro(maps, masks, limit), abs=1e-9)


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


@pytest.mark.parametrize(
    ("maps", "masks", "limit", "message"),
    [
        ([], [], 0.3, "Got 0 maps and 0 masks"),
        ([torch.rand(3, 3)], [], 0.3, "Got 1 maps and 0 masks"),
        ([torch.rand(3, 3)], [torch.ones(4, 4)], 0.3, "differ in shape"),
        ([torch.full((3, 3), math.nan)], [torch.eye(3)], 0.3, "NaN"),
        ([torch.rand(3, 3)], [torch.eye(3)], 0, r"lie in \(0, 1\]"),
    ],
)
def test_wrong_maps_are_refused(maps, masks, limit: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aupro(maps, masks, fpr_limit=limit)
