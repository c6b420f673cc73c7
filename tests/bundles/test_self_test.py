"""Every bundle's training ends with a self-test, and can vary the light."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from multiad_med.networks import read_card
from multiad_med.testing.cohorts import COHORTS, one_bundle_per_input
from tests.bundles.models import train


def log(folder: Path) -> set[str]:
    """Tags of scalars in a training's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = [EventAccumulator(str(f)).Reload() for f in folder.glob("events.*")]
    return {tag for events in logs for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("name", one_bundle_per_input())
def test_the_training_ends_with_a_self_test_and_nothing_else_depends_on_it(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = COHORTS[name](tmp_path)
    with caplog.at_level(logging.INFO, logger="multiad_med"):
        tested = train(name, data, tmp_path / "tested", self_test=True)
    card = read_card(tmp_path / "tested" / "model.pt")
    assert card is not None
    assert card.self_test is not None
    assert card.self_test.images > 0
    assert card.self_test.summary in caplog.messages
    assert "self_test/all" in log(tmp_path / "tested")

    plain = train(name, data, tmp_path / "plain")
    other = read_card(tmp_path / "plain" / "model.pt")
    assert other is not None
    assert other.self_test is None
    for key in set(plain) - {"_extra_state"}:
        assert torch.equal(plain[key], tested[key]), key
    assert other.levels == card.levels


@pytest.mark.parametrize("name", one_bundle_per_input())
def test_light_can_vary_in_training(name: str, tmp_path: Path) -> None:
    data = COHORTS[name](tmp_path)
    varied = train(name, data, tmp_path / "varied", light_augmentation=True)
    plain = train(name, data, tmp_path / "plain")
    weights = [key for key in plain if key.startswith("student.") and key.endswith("weight")]
    assert not all(torch.equal(varied[key], plain[key]) for key in weights)
    card = read_card(tmp_path / "varied" / "model.pt")
    assert card is not None
    assert card.training["light_augmentation"] is True
