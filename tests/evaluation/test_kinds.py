"""Image AUROC of each kind of anomaly, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multiad_med.evaluation.kinds import kind_metrics


def metrics(*rows: tuple[str, str, float, bool]) -> dict[str, Any]:
    """Of rows of category, kind, score, and whether it is abnormal."""
    return kind_metrics(
        [{"category": category, "kind": kind} for category, kind, _, _ in rows],
        [torch.tensor([score]) for _, _, score, _ in rows],
        [torch.tensor([abnormal]) for *_, abnormal in rows],
    )


def test_locos_figure_is_the_mean_of_logical_and_structural() -> None:
    found = metrics(
        ("box", "good", 0.1, False),
        ("box", "good", 0.5, False),
        ("box", "logical_anomalies", 0.3, True),
        ("box", "structural_anomalies", 0.6, True),
        ("box", "structural_anomalies", 0.7, True),
    )
    assert found == {
        "logical_anomalies": {"image_auroc": 0.5},
        "structural_anomalies": {"image_auroc": 1.0},
        "mean": {"image_auroc": 0.75},
    }


def test_a_kind_is_compared_within_each_category() -> None:
    found = metrics(
        ("a", "good", 0.1, False),
        ("a", "dent", 0.2, True),
        ("b", "good", 0.8, False),
        ("b", "dent", 0.7, True),
        ("b", "rust", 0.9, True),
        ("c", "rust", 0.9, True),  # without a normal image there is no figure
    )
    assert found["dent"]["image_auroc"] == pytest.approx(0.5)
    assert found["rust"]["image_auroc"] == 1.0


def test_one_kind_or_none_has_no_table() -> None:
    assert metrics(("", "good", 0.1, False), ("", "dent", 0.2, True)) == {}
    assert metrics(("", "", 0.1, False), ("", "", 0.2, True)) == {}
