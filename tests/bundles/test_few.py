"""Few or odd normal images: a model that says how far it carries, or what is missing."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from multiad_med.networks import read_card
from multiad_med.resources import run_bundle
from multiad_med.scoring import Level
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.cohorts import FAST
from multiad_med.testing.layouts import save_image
from multiad_med.testing.layouts.shapes import texture
from multiad_med.utils.errors import InputError

AFFINE = np.diag([4.0, 4.0, 8.0, 1.0])


def cloth(seed: int, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    return 120 + 20 * texture(shape, np.random.default_rng(seed))


def images(folder: Path, values_of_images: list[np.ndarray]) -> Path:
    for index, values in enumerate(values_of_images):
        save_image(folder / "in" / f"{index}.png", values)
    return folder / "in"


def train(
    data: Path, caplog: pytest.LogCaptureFixture, *, domain: str = "industrial", **override: object
) -> list[str]:
    """Train with random weights; the log, once all of the model is seen to be finite."""
    run = data.parent / "run"
    given = {**FAST, "max_epochs": 1, "teacher_weights": "random", **override}
    with caplog.at_level(logging.INFO, logger="multiad_med"):
        run_bundle(
            f"multiad_{domain}",
            "train.json",
            workflow_type="train",
            dataset_dir=str(data),
            ckpt_dir=str(run),
            output_dir=str(run),
            **given,
        )
    state = torch.load(run / "model.pt", weights_only=True)
    assert all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point())
    assert bool(state["calibrated"])
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("count", "trained", "held_out"), [(19, 17, 2), (5, 4, 1), (2, 1, 1)])
def test_few_images_train_and_it_is_said(
    count: int, trained: int, held_out: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = train(images(tmp_path, [cloth(seed) for seed in range(count)]), caplog)
    assert any(re.search(rf"Few normal images.*\b{trained}\b", line) for line in lines)
    card = read_card(tmp_path / "run/model.pt")
    assert card is not None
    assert len(card.level(Level.SLICE).scores) == held_out
    assert card.level(Level.SLICE).threshold is None


def test_one_image_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = images(tmp_path, [cloth(0)])
    with pytest.raises(InputError, match="two subjects"):
        train(data, caplog)


def test_three_held_out_images_calibrate_without_a_verdict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = images(tmp_path, [cloth(seed) for seed in range(24)])
    lines = train(data, caplog, validation_fraction=0.125)
    assert any(re.search(r"Calibrated.*\b3 images, 3 patients", line) for line in lines)
    assert any(re.search(r"Too few images.*0\.05.*\b19\b", line) for line in lines)
    assert not [line for line in lines if line.startswith("Few normal")]


def test_images_of_several_sizes_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shapes = [(64, 64), (50, 80), (100, 30), (65, 64), (8, 8), (1, 1)]
    train(images(tmp_path, [cloth(seed, shape) for seed, shape in enumerate(shapes)]), caplog)


@pytest.mark.parametrize("value", [0, 128])
def test_images_of_one_value_are_told(
    value: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = images(tmp_path, [np.full((64, 64), float(value))] * 6)
    with pytest.warns(UserWarning, match="the image shows nothing") as warned:
        train(data, caplog)
    assert len([w for w in warned if "shows nothing" in str(w.message)]) == 1


def test_copies_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = train(images(tmp_path, [cloth(0)] * 6), caplog)
    assert any(re.search(r"\b4 of 5 training images.*copies", line) for line in lines)
    assert any(re.search(r"\b1 held-out image.*trained.*copy", line) for line in lines)


def test_two_volumes_train_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(2):
        volume = head(np.random.default_rng(seed), (32, 36, 8))
        write_nifti(tmp_path / "in" / f"{seed}.nii.gz", volume, AFFINE)
    lines = train(tmp_path / "in", caplog, domain="brain_mri")
    assert any(re.search(r"Few normal volumes.*\b1\b", line) for line in lines)
    assert any(re.search(r"Calibrated.*\b1 volume, 1 patient\b", line) for line in lines)


def test_one_volume_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_nifti(tmp_path / "in" / "a.nii.gz", head(np.random.default_rng(0), (32, 36, 8)), AFFINE)
    with pytest.raises(InputError, match="two subjects"):
        train(tmp_path / "in", caplog, domain="brain_mri")
