"""Calibration reaches its stated rates on the images that it saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multiad_med.engines import calibrate
from multiad_med.networks import MultiAD, cosine_distance_maps
from multiad_med.scoring import image_scores
from tests.conftest import tiny_multiad


def _batches(masked: bool = True) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    batches = []
    for size in (4, 4, 2):
        image = torch.rand(size, 3, 64, 64, generator=generator)
        foreground = torch.zeros(size, 1, 64, 64, dtype=torch.bool)
        foreground[..., 16:48, 8:56] = True
        batches.append({"image": image * foreground, "foreground": foreground})
        if not masked:
            del batches[-1]["foreground"]
    return batches


def _maps(network: MultiAD, masked: bool = True) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        maps = torch.cat([network(b["image"]) for b in _batches()])
    return maps, torch.cat([b["foreground"] for b in _batches()])


@pytest.mark.parametrize("fraction", [0.0, 0.01])
@pytest.mark.parametrize("fusion", ["zscore", "quantile", "sum", "product"])
def test_stated_rates_are_reached(fusion: str, fraction: float) -> None:
    torch.manual_seed(0)
    network = tiny_multiad(fusion=fusion)
    calibrate(
        network,
        _batches(),
        pixel_false_positive_rate=0.02,
        image_false_positive_rate=0.2,
        score_fraction=fraction,
    )
    maps, foreground = _maps(network)
    flagged = (maps[foreground] >= 0.5).float().mean()
    assert 0.019 <= float(flagged) <= 0.0201
    scores = image_scores(maps, foreground, fraction=fraction)
    assert int((scores >= network.image_threshold - 1e-7).sum()) == 2
    assert bool(network.calibrated)
    assert float(network.pixel_false_positive_rate) == pytest.approx(0.02)
    assert float(network.score_fraction) == pytest.approx(fraction)


def test_statistics_are_mean_and_deviation_over_the_foreground() -> None:
    torch.manual_seed(0)
    network = tiny_multiad()
    calibrate(network, _batches())
    network.eval()
    values: list[list[Tensor]] = [[] for _ in network.stages]
    for batch in _batches():
        with torch.no_grad():
            maps = cosine_distance_maps(*network.features(batch["image"]))
        for stage, (level, stride) in enumerate(zip(maps, network.strides, strict=True)):
            covered = batch["foreground"].float().unfold(2, stride, stride)
            covered = covered.unfold(3, stride, stride).mean(dim=(-1, -2))
            # Of the last stage's four locations none is half covered, and all are covered alike.
            covered = covered >= (0.5 if stage < 3 else 0.375)
            values[stage].append(level[covered])
    for level, found in zip(network.fusion.levels, values, strict=True):
        expected = torch.cat(found)
        assert float(level.running_mean) == pytest.approx(float(expected.mean()), rel=1e-4)
        assert float(level.running_var) ** 0.5 == pytest.approx(float(expected.std()), rel=1e-4)


def test_whole_image_counts_without_foreground() -> None:
    network = tiny_multiad()
    calibrate(network, _batches(masked=False), pixel_false_positive_rate=0.05)
    maps, _ = _maps(network)
    assert float((maps >= 0.5).float().mean()) == pytest.approx(0.05, abs=1e-3)


def test_tiles_of_a_picture_count_as_one_image_with_its_highest_score() -> None:
    torch.manual_seed(0)
    network = tiny_multiad()
    batches = _batches()
    names = iter("aabbccddee")  # across batches of 4, 4, 2
    named = [b | {"subject": [next(names) for _ in b["image"]]} for b in batches]
    calibrate(network, named, image_false_positive_rate=0.2, group="subject")
    maps, foreground = _maps(network)
    pictures = image_scores(maps, foreground).view(5, 2).amax(dim=1)
    # One of five pictures is flagged, though two of ten tiles would be without the group.
    assert int((pictures >= network.image_threshold - 1e-7).sum()) == 1
    assert float(network.image_threshold) == pytest.approx(float(pictures.max()), abs=1e-6)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "Calibration needs held-out normal images"),
        (
            [{"image": torch.rand(1, 3, 64, 64), "foreground": torch.zeros(1, 1, 64, 64)}],
            "Calibration needs held-out normal images",
        ),
        ([{"image": torch.full((2, 3, 64, 64), 0.5)}] * 2, "Stage . of 4 has a distance map"),
    ],
)
def test_nothing_to_calibrate_on_is_refused(batches: list[dict[str, Tensor]], message: str) -> None:
    network = tiny_multiad()
    if batches and "foreground" not in batches[0]:
        # Constant images through unpadded one-pixel features give one distance everywhere.
        for module in (*network.teacher.stages, *network.student.backbone.stages):
            module.padding = (0, 0)
        batches = [{"image": torch.full((2, 3, 128, 128), 0.5)}] * 2
    with pytest.raises(ValueError, match=message):
        calibrate(network, batches)
    assert not bool(network.calibrated)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"pixel_false_positive_rate must lie in \(0, 1\)"):
        calibrate(tiny_multiad(), _batches(), pixel_false_positive_rate=rate)
