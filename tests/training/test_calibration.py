"""Calibration reaches its stated rates on the images that it saw."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from multiad_med.networks import MultiAD, cosine_distance_maps
from multiad_med.scoring import Level, image_scores
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import calibrate


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
    slices = network.card.level(Level.SLICE)
    assert slices.units == 10
    assert slices.rate == 0.2
    assert sorted(slices.scores) == pytest.approx(sorted(scores.tolist()), abs=1e-6)
    # Of eleven, a new one included, two may be flagged: one of the ten, and it.
    assert int(slices.flagged(scores.sort().values - 1e-6).sum()) == 1
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


def _named(**names: str) -> list[dict[str, Any]]:
    """The ten images with names, a letter each, across batches of 4, 4 and 2."""
    letters = {key: iter(text) for key, text in names.items()}
    return [
        b | {key: [next(names) for _ in b["image"]] for key, names in letters.items()}
        for b in _batches()
    ]


def test_tiles_of_an_image_count_as_one_with_its_highest_score() -> None:
    torch.manual_seed(0)
    network = tiny_multiad()
    calibrate(network, _named(subject="aabbccddee"), group="subject")
    maps, foreground = _maps(network)
    images = image_scores(maps, foreground).view(5, 2).amax(dim=1)
    slices = network.card.level(Level.SLICE)
    assert sorted(slices.scores) == pytest.approx(sorted(images.tolist()), abs=1e-6)


def test_a_volume_scores_as_its_highest_slice_and_a_patient_as_its_highest_volume() -> None:
    torch.manual_seed(0)
    network = tiny_multiad()
    named = _named(study="aabbbccdde", subject="xxxxxyyzzz")
    calibrate(network, named, image_false_positive_rate=0.1, volume_false_positive_rate=0.25)
    maps, foreground = _maps(network)
    scores = image_scores(maps, foreground)
    volumes = [scores[a:b].max() for a, b in ((0, 2), (2, 5), (5, 7), (7, 9), (9, 10))]
    patients = [scores[a:b].max() for a, b in ((0, 5), (5, 7), (7, 10))]
    for level, expected, rate in (
        (Level.SLICE, scores, 0.1),
        (Level.VOLUME, torch.stack(volumes), 0.25),
        (Level.PATIENT, torch.stack(patients), 0.25),
    ):
        normals = network.card.level(level)
        assert normals.rate == rate
        assert sorted(normals.scores) == pytest.approx(sorted(expected.tolist()), abs=1e-6)


def test_other_subjects_can_set_the_thresholds() -> None:
    torch.manual_seed(0)
    network = tiny_multiad()
    first, second, third = _named(study="abcdefghij", subject="abcdefghij")
    calibrate(network, [first], threshold_batches=[second, third])
    statistics = network.fusion.levels[0].get_buffer("running_mean").clone()
    normals = network.card.level(Level.VOLUME)
    assert normals.units == 6
    assert normals.approximate == ""
    with torch.no_grad():
        maps = torch.cat([network(b["image"]) for b in (second, third)])
    scores = image_scores(maps, torch.cat([second["foreground"], third["foreground"]]))
    assert sorted(normals.scores) == pytest.approx(sorted(scores.tolist()), abs=1e-6)
    calibrate(network, [first])
    assert torch.equal(network.fusion.levels[0].get_buffer("running_mean"), statistics)


def test_p_values_of_subjects_that_fitted_too_are_marked_approximate() -> None:
    first, second, third = _named(study="abcdefghij", subject="abcdefghid")
    for thresholds in (None, [second, third]):  # d is in both
        network = tiny_multiad()
        calibrate(network, [first], threshold_batches=thresholds)
        for level in Level:
            assert "the same subjects" in network.card.level(level).approximate


def test_slices_of_fewer_subjects_than_the_rate_needs_are_marked_approximate() -> None:
    batches = _named(study="abcdefghij", subject="aaaabbbbcc")
    network = tiny_multiad()
    calibrate(network, batches[:1], threshold_batches=batches[1:], image_false_positive_rate=0.25)
    told = network.card.level(Level.SLICE).approximate
    assert re.search(r"^6 slices\b.*\b2 subjects\b.*\b3 subjects", told)
    assert "6 volumes of only 2 subjects" in network.card.level(Level.VOLUME).approximate
    assert network.card.level(Level.PATIENT).approximate == ""


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "held-out normal images"),
        (
            [{"image": torch.rand(1, 3, 64, 64), "foreground": torch.zeros(1, 1, 64, 64)}],
            "held-out normal images",
        ),
        ([{"image": torch.full((2, 3, 64, 64), 0.5)}] * 2, "Map . of 4: .* spread"),
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
    with pytest.raises(ValueError, match=r"pixel_false_positive_rate.*\(0, 1\)"):
        calibrate(tiny_multiad(), _batches(), pixel_false_positive_rate=rate)
