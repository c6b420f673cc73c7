"""Rankings against scikit-learn, a slow loop, and by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from multiad_med.metrics import Ranking, auroc, average_precision, counting, f1_max

scored = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=60)


def _split(items: list[tuple[int, bool]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([float(s) for s, _ in items]), torch.tensor([y for _, y in items])


def _best_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    return float(np.divide(2 * precision * recall, total, where=total > 0, out=total * 0).max())


@pytest.mark.slow
@given(scored)
def test_metrics_equal_scikit_learn_with_ties(items: list[tuple[int, bool]]) -> None:
    scores, labels = _split(items)
    if labels.all() or not labels.any():
        assert math.isnan(auroc(scores, labels))
        return
    y, s = labels.numpy(), scores.numpy()
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(
        average_precision_score(y, s), abs=1e-12
    )
    assert f1_max(scores, labels) == pytest.approx(_best_f1(y, s), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("anomalous", "dtype"),
    [
        (3, torch.float32),
        (4000, torch.float32),
        (4000, torch.float64),
        (135_000, torch.float32),
    ],
)
@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(lambda s: s, id="gaussian"),
        pytest.param(torch.sigmoid, id="sigmoid"),
        pytest.param(lambda s: (s * 20).round() / 20, id="ties"),
        pytest.param(lambda s: s.sinh() ** 7, id="huge range"),
        pytest.param(lambda s: s.relu(), id="half zero"),
        pytest.param(lambda s: 1 - 1e-2 * torch.sigmoid(s), id="near 1"),
        pytest.param(lambda s: s * 1e-42, id="subnormal"),
    ],
)
def test_many_scores_equal_scikit_learn(anomalous: int, dtype: torch.dtype, scale) -> None:
    generator = torch.Generator().manual_seed(anomalous)
    labels = torch.arange(140_000) < anomalous
    scores = scale(torch.randn(140_000, generator=generator, dtype=dtype) + labels)
    ranking = Ranking(scores, labels)
    y, s = labels.numpy(), scores.numpy()
    assert ranking.auroc == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert ranking.average_precision == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert ranking.f1_max == pytest.approx(_best_f1(y, s), abs=1e-12)


@pytest.mark.slow
@given(
    arrays(
        st.sampled_from([np.float32, np.float64]),
        st.integers(1, 300),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
        | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149)]),
    ),
    st.data(),
)
def test_counts_without_a_full_sort_equal_comparisons(
    scores: np.ndarray, data: st.DataObject
) -> None:
    picked = data.draw(st.lists(st.integers(0, len(scores) - 1), min_size=1, max_size=8))
    thresholds = np.unique(scores[picked])
    near, beyond = counting._near_and_beyond(scores, thresholds, data.draw(st.integers(2, 10)))
    assert (near[:-1] <= near[1:]).all()
    above = beyond + (near[:, None] > thresholds).sum(0)
    reached = beyond + (near[:, None] >= thresholds).sum(0)
    np.testing.assert_array_equal(above, (scores[:, None] > thresholds).sum(0))
    np.testing.assert_array_equal(reached, (scores[:, None] >= thresholds).sum(0))


def test_double_scores_are_not_rounded() -> None:
    scores = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert auroc(scores, torch.tensor([0, 1])) == 1
    assert auroc(scores, torch.tensor([1, 0])) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.uint8])
def test_other_types_are_ranked_by_value(dtype: torch.dtype) -> None:
    scores = torch.tensor([3, 1, 2, 2], dtype=dtype)
    assert auroc(scores, torch.tensor([1.0, 0.0, 0.0, 1.0])) == pytest.approx(0.875)


@pytest.mark.slow
@given(scored)
def test_monotone_maps_leave_the_ranking_unchanged(items: list[tuple[int, bool]]) -> None:
    scores, labels = _split(items)
    for metric in (auroc, average_precision, f1_max):
        a, b = metric(scores, labels), metric(scores.exp() - 100, labels)
        assert a == b or (math.isnan(a) and math.isnan(b))


@given(scored)
def test_opposite_scores_have_the_complementary_auroc(items: list[tuple[int, bool]]) -> None:
    scores, labels = _split(items)
    assume(labels.any() and not labels.all())
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels), abs=1e-12)


@pytest.mark.parametrize("size", [10, 300_000])
def test_perfect_scores_1_and_constant_scores_half(size: int) -> None:
    labels = torch.arange(size) % 5 == 0
    perfect = Ranking(labels.float(), labels)
    assert (perfect.auroc, perfect.average_precision, perfect.f1_max) == (1, 1, 1)
    assert perfect.f1_max_threshold == 1
    constant = Ranking(torch.full((size,), 0.3), labels)
    assert (constant.auroc, constant.average_precision) == (0.5, pytest.approx(0.2))


@pytest.mark.slow
@given(scored)
def test_flagging_from_the_best_threshold_has_the_best_f1(items: list[tuple[int, bool]]) -> None:
    scores, labels = _split(items)
    assume(labels.any())
    ranking = Ranking(scores, labels)
    flagged = scores >= ranking.f1_max_threshold
    assert f1_score(labels, flagged) == pytest.approx(ranking.f1_max, abs=1e-12)


@given(scored)
def test_every_curve_point_is_what_its_threshold_flags(items: list[tuple[int, bool]]) -> None:
    scores, labels = _split(items)
    assume(labels.any() and not labels.all())
    ranking = Ranking(scores, labels)
    for false, true, threshold in zip(*ranking.roc_curve(), strict=True):
        flagged = scores >= threshold
        assert false == pytest.approx(flagged[~labels].double().mean().item())
        assert true == pytest.approx(flagged[labels].double().mean().item())
    for precision, recall, threshold in zip(*ranking.precision_recall_curve(), strict=True):
        flagged = scores >= threshold
        assert precision == pytest.approx(labels[flagged].double().mean().item())
        assert recall == pytest.approx(flagged[labels].double().mean().item())


def test_thinned_curves_keep_their_ends_and_shape() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(200_000) % 10 == 0
    scores = torch.randn(200_000, generator=generator) + labels
    ranking = Ranking(scores, labels)
    false, true, _ = ranking.roc_curve()
    assert 500 < len(false) <= 1000
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(ranking.auroc, abs=1e-3)
    x, y, _ = roc_curve(labels, scores)
    np.testing.assert_allclose(true, np.interp(false, x, y), atol=2e-3)
    curve = ranking.precision_recall_curve(points=50)
    assert len(curve.recall) <= 50
    assert curve.recall[-1] == 1
    assert (np.diff(curve.recall) > 0).all()


def test_one_class_is_nan_not_a_crash() -> None:
    scores = torch.rand(5)
    assert math.isnan(auroc(scores, torch.ones(5)))
    assert average_precision(scores, torch.ones(5)) == 1
    assert math.isnan(average_precision(scores, torch.zeros(5)))
    assert math.isnan(f1_max(scores, torch.zeros(5)))
    normal = Ranking(scores, torch.zeros(5))
    assert math.isnan(normal.f1_max_threshold)
    assert np.isnan(normal.roc_curve().true_positive_rate).all()
    assert normal.precision_recall_curve().recall.size == 0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.rand(3), torch.rand(4), "differ in shape"),
        (torch.rand(3, 1), torch.rand(3), "differ in shape"),
        (torch.rand(0), torch.rand(0), "no scores"),
        (torch.tensor([1.0, math.nan]), torch.tensor([0, 1]), "1 scores are NaN or infinite, of 2"),
        (torch.tensor([1.0, -math.inf]), torch.tensor([0, 1]), "1 scores are NaN or infinite"),
        (torch.rand(2), torch.tensor([0, math.nan]), "1 labels are NaN, of 2"),
    ],
)
def test_wrong_rankings_are_refused(scores, labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        auroc(scores, labels)


def test_a_curve_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="points must be 2 or more, got 1"):
        Ranking(torch.rand(4), torch.tensor([0, 1, 0, 1])).roc_curve(points=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_scores_on_another_device() -> None:
    scores, labels = torch.rand(50, requires_grad=True), torch.arange(50) % 3 == 0
    assert auroc(scores.cuda(), labels.cuda()) == auroc(scores, labels)
