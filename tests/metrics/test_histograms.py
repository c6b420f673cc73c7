"""Metrics from histograms against the exact ones, on literal resamples and within the stated bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multiad_med.metrics import Ranking, SubjectHistograms, aupro, map_edges, resamples

NAMES = ("auroc", "average_precision", "f1_max")


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, abs=1e-12)


def _ones(subjects: int) -> Tensor:
    return torch.ones(1, subjects, dtype=torch.int64)


def _images(seed: int, levels: int | None, subjects: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Per subject images (N, H, W) and masks with several regions."""
    rng = np.random.default_rng(seed)
    images = []
    for number in rng.integers(1, 4, subjects):
        masks = rng.random((number, 9, 8)) < 0.2
        maps = rng.standard_normal(masks.shape) + masks
        if levels:
            maps = np.clip(np.round(maps * 2), -levels, levels)
        images.append((torch.from_numpy(maps).float(), torch.from_numpy(masks)))
    return images


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.3, 1.0]))
def test_few_distinct_scores_make_histograms_exact(seed: int, limit: float) -> None:
    images = _images(seed, levels=4)
    edges = torch.cat([m.flatten() for m, _ in images]).unique().double()
    histograms = SubjectHistograms(edges, regions=True)
    for subject, (maps, masks) in enumerate(images):
        histograms.update(subject, maps[0], masks[0])
        histograms.update(subject, maps[1:], masks[1:])
    weights = torch.cat([_ones(len(images)), resamples(len(images), count=6, seed=seed)])
    ours = histograms.metrics(weights, fpr_limit=limit)
    for row, drawn in enumerate(weights):
        maps, masks = (
            [image for s, n in enumerate(drawn) for image in images[s][kind] for _ in range(n)]
            for kind in (0, 1)
        )
        ranking = Ranking(torch.stack(maps), torch.stack(masks))
        for name in NAMES:
            assert _same(float(ours[name][row]), getattr(ranking, name))
        assert _same(float(ours["aupro"][row]), aupro(maps, masks, fpr_limit=limit))


def test_binning_costs_little_and_no_more_than_stated() -> None:
    rng = np.random.default_rng(0)
    masks = torch.zeros(12, 128, 128, dtype=torch.bool)
    for image, (x, y, r) in zip(masks, rng.integers(4, 100, (12, 3)), strict=True):
        image[x : x + 4 + r // 6, y : y + 4 + r // 8] = True
    scores = torch.from_numpy(rng.gamma(2, 1, masks.shape)).float() + 2 * masks
    maps = scores / (scores + 6.6)  # about 1 % of the normal ones reach 0.5
    histograms = SubjectHistograms(map_edges(), regions=True)
    for subject in range(4):
        part = slice(3 * subject, 3 * subject + 3)
        histograms.update(subject, maps[part], masks[part])
    ours = {name: float(v) for name, v in histograms.metrics(_ones(4)).items()}
    exact = Ranking(maps, masks)
    errors = {name: abs(ours[name] - getattr(exact, name)) for name in NAMES}
    errors["aupro"] = abs(ours["aupro"] - aupro(list(maps), list(masks)))
    assert errors["auroc"] < 2e-5
    assert errors["aupro"] < 5e-4
    assert errors["average_precision"] < 2e-4
    assert errors["f1_max"] < 1e-3
    assert ours["f1_max"] <= exact.f1_max


def test_stated_bounds_hold_with_coarse_bins() -> None:
    for seed in range(20):
        images = _images(seed, levels=None)
        scores, labels = (torch.cat([i[kind].flatten() for i in images]) for kind in (0, 1))
        edges = scores.double().quantile(torch.linspace(0, 1, 11, dtype=torch.float64))
        histograms = SubjectHistograms(edges)
        histograms.update(0, scores, labels)
        ours = {name: float(v) for name, v in histograms.metrics(_ones(1)).items()}
        exact = Ranking(scores, labels)
        share = float(histograms.negatives.max() / histograms.negatives.sum())
        assert abs(ours["auroc"] - exact.auroc) <= share / 2
        added = (histograms.positives + histograms.negatives)[0].flip(0)
        part = added / added.cumsum(0)
        recall = histograms.positives[0].flip(0) / histograms.positives.sum()
        bound = float((recall * part).sum())
        assert abs(ours["average_precision"] - exact.average_precision) <= bound
        assert ours["f1_max"] <= exact.f1_max + 1e-12


def test_edges_of_maps_are_even_in_the_ratio_of_score_and_threshold() -> None:
    edges = map_edges(bins=20)
    ratio = edges / (1 - edges)
    assert len(edges) == 19
    assert torch.allclose(ratio[1:] / ratio[:-1], torch.full((18,), math.e, dtype=torch.float64))
    assert ratio[9] == 1  # the threshold is an edge
    assert (map_edges().diff() > 0).all()


def test_a_subject_without_pixels_is_a_row_of_zeros() -> None:
    histograms = SubjectHistograms(EDGES)
    histograms.update(1, torch.tensor([0.5, 2.0]), torch.tensor([0, 1]))
    assert histograms.negatives.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert histograms.positives.tolist() == [[0, 0, 0], [0, 0, 1]]


W = resamples(2, count=3)
EDGES = torch.tensor([0.0, 1.0])


def _of_subjects(count: int) -> SubjectHistograms:
    histograms = SubjectHistograms(EDGES)
    histograms.update(count - 1, torch.zeros(1), torch.zeros(1))
    return histograms


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: map_edges(bins=3), "bins must be 4 or more, got 3"),
        (lambda: SubjectHistograms(torch.tensor([])), "edges must be a vector"),
        (lambda: SubjectHistograms(torch.tensor([math.nan])), "edges must be a vector"),
        (lambda: SubjectHistograms(torch.tensor([1.0, 1.0])), "strictly ascending"),
        (
            lambda: SubjectHistograms(EDGES).update(-1, torch.rand(2), torch.ones(2)),
            "subject must be 0 or more, got -1",
        ),
        (
            lambda: SubjectHistograms(EDGES).update(0, torch.rand(2), torch.ones(3)),
            "differ in shape",
        ),
        (
            lambda: SubjectHistograms(EDGES).update(0, torch.full((2,), math.nan), torch.ones(2)),
            "2 scores are NaN",
        ),
        (
            lambda: SubjectHistograms(EDGES, regions=True).update(0, torch.rand(2), torch.ones(2)),
            r"images \(H, W\) or \(N, H, W\), got \(2,\)",
        ),
        (lambda: _of_subjects(3).metrics(W), r"weights must be \(resamples, 3\)"),
        (lambda: _of_subjects(2).metrics(W, fpr_limit=0), r"lie in \(0, 1\]"),
    ],
)
def test_wrong_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
