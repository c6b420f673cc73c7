"""Metrics of each category, their mean, and those of all together."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from multiad_med.card import ModelCard
from multiad_med.evaluation import evaluate_cases
from multiad_med.evaluation.categories import category_metrics, note_categories
from multiad_med.evaluation.collected import Thresholds
from multiad_med.evaluation.summary import print_summary
from multiad_med.metrics import Estimate
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.slice_caches import volume_case

NORMALS = NormalScores((0.5,) * 19, 0.05)
"""Flag what scores more than 0.5."""


def test_one_threshold_flags_each_category_otherwise() -> None:
    # Each category is ranked without error; the one threshold is too high for one, too low for the other.
    scores = [torch.tensor([s]) for s in (0.1, 0.2, 0.7, 0.8)]
    abnormal = [torch.tensor([a]) for a in (False, True, False, True)]
    found = category_metrics(
        ["nut", "nut", "tile", "tile"],
        scores,
        abnormal,
        pixels=None,
        metrics={"image_auroc": Estimate(0.75, 0.75, 0.75)},
        normals=NORMALS,
    )
    rates = {name: (own["observed_rate"], own["sensitivity"]) for name, own in found.items()}
    assert rates == {"nut": (0, 0), "tile": (1, 1), "mean": (0.5, 0.5), "pooled": (0.5, 0.5)}
    assert [own["image_auroc"] for own in found.values()] == [1, 1, 1, 0.75]
    assert "pixel_auroc" not in found["pooled"]  # there are no masks


def test_without_a_threshold_there_are_no_rates() -> None:
    found = category_metrics(
        ["nut", "tile"],
        [torch.tensor([0.1]), torch.tensor([0.2])],
        [torch.tensor([False]), torch.tensor([True])],
        pixels=None,
        metrics={},
        normals=NormalScores((), 0.05),
    )
    assert {own["sensitivity"] for own in found.values()} == {None}
    assert found["pooled"]["image_auroc"] is None


@pytest.mark.slow
def test_what_was_trained_and_not_tested_is_told_and_the_other_way_round() -> None:
    cases = [volume_case("a", lesion=True), volume_case("b", lesion=False)]
    cases[0].category, cases[1].category = "brain", "spleen"
    evaluation = evaluate_cases(cases, bootstrap=10)
    before = list(evaluation.remarks)
    note_categories(evaluation, ModelCard())  # of one category: nothing is known
    assert evaluation.remarks == before
    card = ModelCard(training={"training_data": {"categories": ["brain", "liver", "retina"]}})
    note_categories(evaluation, card)
    assert evaluation.remarks[len(before) :] == [
        "The model was trained on liver, retina too: nothing of that was evaluated.",
        "The model was not trained on spleen: what is normal there it cannot know.",
    ]
    shown = io.StringIO()
    print_summary(evaluation.as_json(), Console(file=shown, width=120), title="organs")
    assert "brain" in shown.getvalue()
    assert "pooled" in shown.getvalue()


@pytest.mark.slow
def test_a_category_that_the_threshold_does_not_fit_is_told() -> None:
    cases = [volume_case(name, lesion=False) for name in "ab"]
    for case, category, score in zip(cases, ("brain", "retina"), (0.4, 0.9), strict=True):
        case.category = category
        case.scores = torch.full_like(case.scores, score)
    evaluation = evaluate_cases(
        cases, thresholds=Thresholds(levels={Level.SLICE: NORMALS}), bootstrap=10
    )
    note_categories(evaluation, ModelCard())
    assert evaluation.remarks[-1].startswith(
        "The one threshold does not fit every category: flagged are 100% of retina among the normal "
        "slices, 5% were asked for."
    )
