"""What TensorBoard shows is what was computed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.handlers import LrScheduleHandler, ValidationHandler
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from multiad_med.networks import MultiAD, cosine_distance_maps
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import (
    DistillationEvaluator,
    DistillationTrainer,
    TensorBoardMapHandler,
    TensorBoardStudentHandler,
    calibrate,
)

SIZE = 64


def _batches(channels: int = 3) -> list[dict[str, Tensor]]:
    """Three batches of slices that are bright in their lower right (largest X, smallest Y)."""
    generator = torch.Generator().manual_seed(3)
    batches = []
    for size in (4, 4, 2):
        foreground = torch.zeros(size, 1, SIZE, SIZE, dtype=torch.bool)
        foreground[..., 40:, :16] = True
        image = torch.rand(size, channels, SIZE, SIZE, generator=generator) * foreground
        batches.append({"image": image, "foreground": foreground})
    return batches


def _validate(network: MultiAD, folder: Path, channels: int = 3, **kwargs: object) -> None:
    evaluator = DistillationEvaluator(
        device="cpu",
        val_data_loader=_batches(channels),
        network=network,
        val_handlers=[TensorBoardMapHandler(str(folder), **kwargs)],
    )
    for epoch in (1, 2):
        evaluator.run(epoch)


def _events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0}).Reload()


def _image(event: object) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


@pytest.fixture
def network() -> MultiAD:
    torch.manual_seed(0)
    return tiny_multiad()


@pytest.mark.parametrize("channels", [1, 3])
def test_slices_stand_above_their_maps_as_radiologists_look_at_them(
    network: MultiAD, tmp_path: Path, channels: int
) -> None:
    _validate(network, tmp_path, channels, slices=3)
    events = _events(tmp_path).Images("validation_maps")
    assert [e.step for e in events] == [1, 2]
    image = _image(events[0])
    assert image.shape == (2 * SIZE, 3 * SIZE, 3)
    column = image[:SIZE, SIZE : 2 * SIZE]
    # Of 9 slices that are certain (two batches of 4, one of at least 1) the fifth is the middle.
    expected = _batches(channels)[1]["image"][0].expand(3, -1, -1).numpy()
    np.testing.assert_allclose(column / 255, expected[:, ::-1, ::-1].transpose(2, 1, 0), atol=0.01)
    # Largest X and smallest Y: the patient's right is on the left, posterior below.
    assert column[SIZE - 16 :, : SIZE - 40].mean() > 50
    assert not column[: SIZE - 16].any()
    overlay = image[SIZE:, SIZE : 2 * SIZE].astype(int)
    assert not overlay[: SIZE - 16].any()
    assert np.abs(overlay - column).max() > 50


def test_images_stay_as_they_are(network: MultiAD, tmp_path: Path) -> None:
    _validate(network, tmp_path, slices=3, radiological=False)
    column = _image(_events(tmp_path).Images("validation_maps")[0])[:SIZE, SIZE : 2 * SIZE]
    expected = _batches()[1]["image"][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(column / 255, expected, atol=0.01)


def test_histograms_are_of_the_foreground_and_of_each_slices_highest_distance(
    network: MultiAD, tmp_path: Path
) -> None:
    _validate(network, tmp_path)
    inside, highest = [], []
    for batch in _batches():
        with torch.no_grad():
            levels = cosine_distance_maps(*network.eval().features(batch["image"]))
        distance = sum(
            torch.nn.functional.interpolate(x, size=(SIZE, SIZE), mode="bilinear") for x in levels
        ) / len(levels)
        for one, mask in zip(distance, batch["foreground"], strict=True):
            inside.append(one[mask])
            highest.append(float(one[mask].max()))
    events = _events(tmp_path)
    scores = events.Histograms("validation_slice_score")[0].histogram_value
    assert scores.num == 10
    assert scores.sum == pytest.approx(sum(highest), rel=1e-4)
    distances = events.Histograms("validation_distance")[0].histogram_value
    values = torch.cat(inside)
    assert distances.num >= 10 * 256
    assert distances.sum / distances.num == pytest.approx(float(values.mean()), rel=0.02)
    assert distances.max <= float(values.max()) + 1e-6


def test_calibration_does_not_change_what_is_shown(network: MultiAD, tmp_path: Path) -> None:
    _validate(network, tmp_path / "before")
    calibrate(network, _batches())
    _validate(network, tmp_path / "after")
    before, after = (
        _events(tmp_path / f).Images("validation_maps")[0].encoded_image_string
        for f in ("before", "after")
    )
    assert before == after


def test_learning_rates_are_those_of_their_iterations_and_histograms_those_of_the_student(
    network: MultiAD, tmp_path: Path
) -> None:
    optimizer = torch.optim.SGD(network.student.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    DistillationTrainer(
        "cpu",
        2,
        _batches(),
        network,
        optimizer,
        train_handlers=[
            TensorBoardStudentHandler(str(tmp_path)),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
        ],
    ).run()
    events = _events(tmp_path)
    rates = [(e.step, e.value) for e in events.Scalars("learning_rate")]
    assert rates == [(i + 1, pytest.approx(0.1 * 0.5**i)) for i in range(6)]
    weights = {n: p for n, p in network.student.named_parameters() if p.dim() > 1}
    tags = events.Tags()["histograms"]
    assert set(tags) == {f"{kind}/{n}" for kind in ("weights", "gradients") for n in weights}
    for name, weight in weights.items():
        for kind, values in (("weights", weight), ("gradients", weight.grad)):
            last = events.Histograms(f"{kind}/{name}")[-1]
            assert last.step == 2
            assert last.histogram_value.sum == pytest.approx(float(values.sum()), abs=1e-4)


def test_maps_are_written_by_the_validation_of_a_training(network: MultiAD, tmp_path: Path) -> None:
    evaluator = DistillationEvaluator(
        device="cpu",
        val_data_loader=_batches(),
        network=network,
        val_handlers=[TensorBoardMapHandler(str(tmp_path))],
    )
    optimizer = torch.optim.SGD(network.student.parameters(), 0.1)
    DistillationTrainer(
        "cpu",
        2,
        _batches(),
        network,
        optimizer,
        train_handlers=[ValidationHandler(1, evaluator)],
    ).run()
    assert [e.step for e in _events(tmp_path).Images("validation_maps")] == [1, 2]
