"""How long the bundles train, by the number of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser

from multiad_med.networks import read_card
from multiad_med.resources import read_config, run_bundle
from multiad_med.testing.cohorts import FAST, bundle_names
from multiad_med.testing.layouts import save_image
from multiad_med.utils.errors import InputError


def parsed(name: str, batches: int, *ids: str, **override: Any) -> list[int]:
    """Values of a train.json for epochs of so many batches."""
    config = read_config(name, "train.json")
    config["train"]["dataloader"] = f"$range({batches})"
    parser = ConfigParser({**config, **override})
    return [parser.get_parsed_content(key) for key in ids]


@pytest.mark.parametrize("name", bundle_names())
def test_few_images_get_fifty_steps_and_many_no_more_than_ten_thousand(name: str) -> None:
    passes = 20 if name in ("multiad_industrial", "multiad_generalist") else 8
    # Batches of an epoch, and the epochs they make: 50 steps; 50 or 80; as many passes; the limit.
    for batches, epochs in ((1, 50), (4, max(passes, 13)), (100, passes), (10_000, 1)):
        assert parsed(name, batches, "max_epochs") == [epochs]


@pytest.mark.parametrize(("steps", "epochs", "interval"), [(1000, 250, 12), (76, 19, 1), (1, 1, 1)])
def test_validations_are_about_twenty(steps: int, epochs: int, interval: int) -> None:
    found = parsed("multiad_brain_mri", 4, "max_epochs", "val_interval", steps=steps)
    assert found == [epochs, interval]


def test_epochs_that_are_given_decide() -> None:
    assert parsed("multiad_brain_mri", 4, "max_epochs", max_epochs=3) == [3]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index in range(12):  # 11 train: 3 batches of 4
        values = np.random.default_rng(index).uniform(0, 255, (64, 64))
        save_image(tmp_path / "in" / f"{index}.png", values)
    return tmp_path / "in"


def train(data: Path, **override: Any) -> None:
    run_bundle(
        "multiad_industrial",
        "train.json",
        workflow_type="train",
        dataset_dir=str(data),
        ckpt_dir=str(data.parent),
        output_dir=str(data.parent),
        **{**FAST, "batch_size": 4, "teacher_weights": "random", **override},
    )


def test_steps_become_whole_epochs_and_the_card_tells_them(images: Path) -> None:
    train(images, steps=4)
    card = read_card(images.parent / "model.pt")
    assert card is not None
    assert card.training["max_epochs"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"steps": 4, "max_epochs": 2}, "steps and max_epochs"),
        ({"steps": 0}, r"steps.*\b1\b.*got 0"),
    ],
)
def test_lengths_that_are_none_are_refused(
    images: Path, override: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(images, **override)
