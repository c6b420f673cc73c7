"""Thresholds of a network that looks at the whole image too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multiad_med.evaluation.predictions import map_slices
from multiad_med.networks import MultiAD, build_multiad
from multiad_med.networks.experts import TokenGaussian
from multiad_med.scoring import Level, image_scores, joint_map
from multiad_med.training import (
    calibrate,
    fit_experts,
    score_units,
    set_thresholds,
)

NAMES = [f"s{number}" for number in range(40)]


def _batches(seed: int = 0) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(seed)
    batches = []
    for names in (NAMES[:16], NAMES[16:32], NAMES[32:]):
        light = torch.rand(len(names), 1, 1, 1, generator=random)
        image = torch.rand(len(names), 3, 64, 64, generator=random) * light
        foreground = torch.zeros(len(names), 1, 64, 64, dtype=torch.bool)
        foreground[..., 8:56, 16:48] = True
        batches.append({"image": image, "foreground": foreground, "subject": names, "study": names})
    return batches


@pytest.fixture(scope="module")
def network() -> MultiAD:
    """With a semantic student and an expert of tokens, calibrated."""
    torch.manual_seed(0)
    found = build_multiad("dual_lite2", teacher_weights="random", experts=["token_gaussian"])
    fit_experts(found, _batches(1))
    assert isinstance(found.experts[0], TokenGaussian)
    calibrate(
        found,
        _batches(),
        pixel_false_positive_rate=0.02,
        image_false_positive_rate=0.1,
        score_fraction=0.01,
    )
    return found


@torch.no_grad()
def _maps(network: MultiAD) -> tuple[Tensor, Tensor, Tensor]:
    batches = _batches()
    return (
        torch.cat([network(b["image"]) for b in batches]),
        torch.cat([network.raw_map(b["image"]) for b in batches]),
        torch.cat([b["foreground"] for b in batches]),
    )


def test_the_pixel_threshold_is_of_the_map_alone(network: MultiAD) -> None:
    maps, _, foreground = _maps(network)
    flagged = (maps[:, :1][foreground] >= 0.5).float().mean()
    assert 0.0199 <= float(flagged) <= 0.0201
    assert (joint_map(maps)[foreground] >= 0.5).float().mean() > 0.05


def test_the_second_channel_is_one_value_of_each_image(network: MultiAD) -> None:
    maps, raw, _ = _maps(network)
    assert maps.shape == raw.shape == (40, 2, 64, 64)
    plane = raw[:, 1]
    assert torch.equal(plane, plane[:, :1, :1].expand_as(plane))
    threshold = network.pixel_threshold
    torch.testing.assert_close(maps, raw / (raw + threshold))
    assert len(plane[:, 0, 0].unique()) > 20


@torch.no_grad()
def test_the_plane_is_the_sum_of_both_hazards_of_tokens(network: MultiAD) -> None:
    image = _batches()[0]["image"]
    distances = network.distances(image)
    assert [tuple(d.shape[2:]) for d in distances] == [(16, 16), (8, 8), (4, 4), (1, 1), (1, 1)]
    levels = network.fusion.levels
    expected = levels[3](distances[3]) + levels[4](distances[4])
    torch.testing.assert_close(network.raw_map(image)[:, 1:, :1, :1], expected)


def test_scores_of_calibration_are_those_of_prediction(network: MultiAD) -> None:
    maps, _, foreground = _maps(network)
    scores = image_scores(maps, foreground, fraction=0.01)
    slices = network.card.level(Level.SLICE)
    assert sorted(slices.scores) == pytest.approx(sorted(scores.tolist()), abs=1e-5)
    predicted = [map_slices(network, b["image"], b["foreground"]) for b in _batches()]
    torch.testing.assert_close(torch.cat([p[1] for p in predicted]), scores, atol=1e-5, rtol=0)
    of_units = score_units(network, _batches())[Level.SLICE]
    assert sorted(of_units) == pytest.approx(sorted(scores.tolist()), abs=1e-5)
    # The map that is shown leaves the plane out, and so cannot give the scores.
    shown = torch.cat([p[0][:, :1] for p in predicted])
    torch.testing.assert_close(shown, maps[:, :1] * foreground)
    assert (image_scores(shown, foreground, fraction=0.01) <= scores).all()
    assert (scores - image_scores(shown, foreground, fraction=0.01)).max() > 0.05


def test_at_most_the_asked_part_of_normals_is_flagged(network: MultiAD) -> None:
    maps, _, foreground = _maps(network)
    scores = image_scores(maps, foreground, fraction=0.01)
    slices = network.card.level(Level.SLICE)
    # Of 41, a new one included, four may be flagged: three of the 40, and it.
    assert int(slices.flagged(scores - 1e-6).sum()) <= 3
    assert int(slices.flagged(scores + 1e-4).sum()) >= 3


def test_new_thresholds_leave_the_fusion_alone(network: MultiAD) -> None:
    before = {k: v.clone() for k, v in network.fusion.state_dict().items()}
    old = float(network.pixel_threshold)
    set_thresholds(network, _batches(5), pixel_false_positive_rate=0.1, score_fraction=0.01)
    assert all(torch.equal(v, before[k]) for k, v in network.fusion.state_dict().items())
    assert float(network.pixel_threshold) != old
    set_thresholds(
        network,
        _batches(),
        pixel_false_positive_rate=0.02,
        image_false_positive_rate=0.1,
        score_fraction=0.01,
    )
    assert float(network.pixel_threshold) == old
