"""What the self-test's result says: metrics, sentences, warnings."""

from __future__ import annotations

import json
import re

import pytest

from multiad_med.card import ModelCard
from multiad_med.self_test_result import Finding, Reaction, SelfTest


def result(large: float = 0.99, darker: float = 0.5, flagged: float | None = 0.4) -> SelfTest:
    """Two kinds; of 2 % found with a mean of 0.8, of 10 % with ``large``."""
    return SelfTest(
        images=30,
        flagged=None if flagged is None else 0.05,
        findings=(
            Finding("intensity", 0.02, 0.7, 0.4, 0.9),
            Finding("intensity", 0.1, large, 0.5, 0.95),
            Finding("blur", 0.02, 0.9, 0.6, 0.8),
            Finding("blur", 0.1, large, 0.7, None),
        ),
        reactions=(
            Reaction("darker", True, darker, flagged),
            Reaction("brighter", True, 0.51, flagged),
            Reaction("blur", False, 0.7, flagged),
        ),
    )


def test_metrics_are_means_over_kinds_and_sizes() -> None:
    found = result()
    assert found.slice_auroc(size=0.02) == pytest.approx(0.8)
    assert found.slice_auroc(kind="intensity") == pytest.approx((0.7 + 0.99) / 2)
    assert found.slice_auroc(kind="blur", size=0.02) == 0.9
    assert found.slice_auroc() == pytest.approx((0.7 + 0.9 + 2 * 0.99) / 4)
    assert found.worst_auroc() == pytest.approx((0.4 + 0.5 + 0.6 + 0.7) / 4)
    assert found.worst_auroc(kind="blur", size=0.1) == 0.7


def test_one_sentence_says_what_is_found_and_reacted_to() -> None:
    summary = result().summary
    for fact in (
        r"^Self-test\b.*\b30 held-out normal images",
        r"\b2 %.*AUROC\b.*\b0\.80\b.*worst\b.*\b0\.50\b.*\b10 %.*\b0\.99 \(0\.60\)",
        r"reacts to light: no, to blur: yes\b",
    ):
        assert re.search(fact, summary)
    assert not list(result().warnings())


def test_a_model_that_reacts_to_light_is_warned_of() -> None:
    found = result(darker=0.65)
    assert "reacts to light: yes" in found.summary
    (warning,) = found.warnings()
    assert re.search(r"'darker'.*\(AUROC 0\.65; 40 %.*\b5 %.*calibrate anew", warning)
    (warning,) = result(darker=0.8, flagged=None).warnings()
    assert "(AUROC 0.80)" in warning


def test_a_model_near_chance_is_warned_of() -> None:
    (warning,) = result(large=0.59).warnings()
    assert re.search(r"\b10 %.*AUROC of 0\.59\b.*near chance", warning)
    assert not list(result(large=0.6).warnings())


def test_a_card_keeps_it_and_one_without_it_loads() -> None:
    card = ModelCard(self_test=result(flagged=None))
    assert ModelCard.from_tensor(card.as_tensor()) == card
    old = json.loads(json.dumps(card.as_json()))
    del old["self_test"]
    assert ModelCard.from_json(old).self_test is None


def test_a_damaged_one_is_told() -> None:
    content = ModelCard(self_test=result()).as_json()
    del content["self_test"]["findings"]
    with pytest.raises(ValueError, match="card is damaged: KeyError"):
        ModelCard.from_json(content)
