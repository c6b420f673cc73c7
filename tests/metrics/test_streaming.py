"""Streaming metrics against the exact ones, within 1e-4 and within the bound that they give."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from multiad_med.metrics import Ranking, StreamingAupro, StreamingRanking, aupro

NAMES = ("auroc", "average_precision", "f1_max")

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "uniform": lambda rng, y: rng.random(y.shape) ** np.where(y, 0.3, 1),
    "heavy-tailed": lambda rng, y: rng.standard_cauchy(y.shape) * (1 + 3 * y),
    "near 1": lambda rng, y: 0.99 + 0.01 * rng.random(y.shape) ** np.where(y, 0.3, 1),
    "near 1 beside zeros": lambda rng, y: np.where(
        rng.random(y.shape) < 0.4, 0, 0.99 + 0.01 * rng.random(y.shape) ** np.where(y, 0.3, 1)
    ),
    "negative": lambda rng, y: -rng.gamma(2, np.where(y, 10, 20)),
    "ties": lambda rng, y: np.round(rng.normal(size=y.shape) + y, 2),
    "huge range": lambda rng, y: rng.choice([-1, 1], y.shape) * 10 ** rng.uniform(-37, 37, y.shape),
    "perfect": lambda rng, y: y + 0.5 * rng.random(y.shape),
    "worst": lambda rng, y: -y + 0.5 * rng.random(y.shape),
}


def _maps(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = np.zeros((8, 128, 128), bool)
    for mask in masks[::2]:
        for _ in range(4):
            y, x = rng.integers(0, 100, 2)
            mask[y : y + rng.integers(1, 28), x : x + rng.integers(1, 28)] = True
    return DISTRIBUTIONS[name](rng, masks.astype(float)).astype(np.float32), masks


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_ranking_is_near_the_exact_one(name: str) -> None:
    maps, masks = _maps(name, 0)
    exact, streaming = Ranking(maps, masks), StreamingRanking()
    for part, mask in zip(maps, masks, strict=True):
        streaming.update(part, mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in NAMES:
            distance = abs(getattr(streaming, metric) - getattr(exact, metric))
            assert distance <= streaming.error_bound[metric] + 1e-12 <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("limit", [0.01, 0.3, 1])
def test_aupro_is_near_the_exact_one(name: str, limit: float) -> None:
    maps, masks = _maps(name, 1)
    streaming = StreamingAupro(fpr_limit=limit)
    for start in (0, 3):
        streaming.update(maps[start : start + 3], masks[start : start + 3])
    streaming.update(torch.from_numpy(maps[6:]), torch.from_numpy(masks[6:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distance = abs(streaming.aupro - aupro(maps, masks, fpr_limit=limit))
    assert distance <= streaming.error_bound + 1e-12 <= 1e-4


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.integers(0, 10**6),
)
def test_few_scores_of_any_range_are_exact(scores: np.ndarray, seed: int) -> None:
    labels = np.random.default_rng(seed).random(scores.shape) < 0.5
    exact, streaming = Ranking(scores, labels), StreamingRanking()
    streaming.update(scores, labels)
    for metric in NAMES:
        np.testing.assert_allclose(getattr(streaming, metric), getattr(exact, metric), atol=1e-12)
        assert not streaming.error_bound[metric] > 0


def _every_page(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Floats of random bits, which leave few bits to a bin."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 1 << 32, 1 << 18, dtype=np.uint32).view(np.float32)
    scores[~np.isfinite(scores)] = 0
    return scores, rng.random(scores.shape) < 0.2 + 0.1 * np.sign(scores)


def test_parts_in_any_order_give_the_same_metrics() -> None:
    fine = _maps("near 1", 2)
    coarse = _every_page(3)
    both, turned = StreamingRanking(), StreamingRanking()
    both.update(*fine)
    turned.update(*coarse)
    assert both._histogram.exact
    assert not turned._histogram.exact
    both.update(*coarse)
    turned.update(*fine)
    for metric in NAMES:
        assert getattr(turned, metric) == getattr(both, metric)
    assert turned.error_bound == both.error_bound
    exact = Ranking(
        np.concatenate([fine[0].ravel(), coarse[0]]), np.concatenate([fine[1].ravel(), coarse[1]])
    )
    for metric in NAMES:
        distance = abs(getattr(both, metric) - getattr(exact, metric))
        assert distance <= both.error_bound[metric] <= 1e-4
    assert both.auroc != exact.auroc


def test_a_bound_above_1e_4_warns_and_names_the_exact_form() -> None:
    rng = np.random.default_rng(0)
    spread, _ = _every_page(5)
    near = (1 + 1e-4 * rng.random(20_000)).astype(np.float32)
    labels = rng.random(20_000) < 0.5
    streaming = StreamingRanking()
    streaming.update(spread, np.zeros(spread.shape, bool))
    streaming.update(near, labels)
    with pytest.warns(UserWarning, match=r"Average precision\b.*off by.*exact"):
        value = streaming.average_precision
    exact = Ranking(
        np.concatenate([spread, near]), np.concatenate([np.zeros(spread.shape), labels])
    )
    assert abs(value - exact.average_precision) <= streaming.error_bound["average_precision"]


def test_bounds_hold_with_few_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PAGE_LOG2": 24, "PAGES": 256, "BINS": 256}.items():
        monkeypatch.setattr(f"multiad_med.metrics.streaming.{name}", value)
    rng = np.random.default_rng(0)
    for size in (6, 10, 20):
        for scale in (0.001, 0.1, 10):
            masks = rng.random((2, size, size)) < rng.choice([0.02, 0.3, 0.9])
            masks[0, 0, :2] = True, False
            maps = (1.3 + scale * (rng.normal(size=masks.shape) + masks)).astype(np.float32)
            maps[1] = -(maps[1] ** 2)
            exact, ranking, regions = Ranking(maps, masks), StreamingRanking(), StreamingAupro()
            ranking.update(maps, masks)
            regions.update(maps, masks)
            assert not ranking._histogram.exact
            for metric in NAMES:
                distance = abs(getattr(ranking, metric) - getattr(exact, metric))
                assert distance <= ranking.error_bound[metric] + 1e-12
            assert abs(regions.aupro - aupro(maps, masks)) <= regions.error_bound + 1e-12


def test_double_scores_are_rounded_within_the_bound() -> None:
    labels = np.arange(1000) % 2
    scores = 1 + 1e-12 * labels
    streaming = StreamingRanking()
    streaming.update(scores, labels)
    assert streaming.error_bound["auroc"] >= 0.5
    with pytest.warns(UserWarning, match="AUROC"):
        assert streaming.auroc == 0.5


def test_one_class_is_nan_not_a_crash() -> None:
    for labels, defined in ((np.zeros(4), ()), (np.ones(4), ("average_precision", "f1_max"))):
        streaming = StreamingRanking()
        streaming.update(np.arange(4.0), labels)
        for metric in NAMES:
            assert math.isnan(getattr(streaming, metric)) == (metric not in defined)
        regions = StreamingAupro()
        regions.update(np.random.rand(1, 2, 2), labels.reshape(1, 2, 2))
        assert math.isnan(regions.aupro)
        assert math.isnan(regions.error_bound)


def test_wrong_input_is_refused_and_leaves_no_trace() -> None:
    streaming, regions = StreamingRanking(), StreamingAupro()
    with pytest.raises(ValueError, match="no scores"):
        _ = streaming.auroc
    with pytest.raises(ValueError, match="no maps"):
        _ = regions.aupro
    with pytest.raises(ValueError, match="differ in shape"):
        streaming.update(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="1 scores are NaN"):
        streaming.update(np.array([0, np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match=r"1 scores.*float32"):
        streaming.update(np.array([0, 1e300]), np.zeros(2))
    many = np.zeros(1 << 19)
    many[-1] = -1e300
    with pytest.raises(ValueError, match=r"1 scores.*float32"):
        streaming.update(many, many)
    maps = np.zeros((2, 3, 3))
    maps[1] = np.nan
    with pytest.raises(ValueError, match="9 scores are NaN"):
        regions.update(maps, np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="Got 1 maps and 2 masks"):
        regions.update(np.zeros((1, 3, 3)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"must be \(H, W\)"):
        regions.update(np.zeros((2, 1, 3, 3)), np.zeros((2, 1, 3, 3)))
    with pytest.raises(ValueError, match=r"lie in \(0, 1\]"):
        StreamingAupro(fpr_limit=2)
    with pytest.raises(ValueError, match="no scores"):
        _ = streaming.auroc
    with pytest.raises(ValueError, match="no maps"):
        _ = regions.aupro
