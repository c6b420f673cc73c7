"""INT8: features alone are quantised, and a network that then finds less is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from multiad_med.inference.openvino import compiled
from multiad_med.inference.quantisation import AccuracyLost, Int8Network, accuracy_lost
from multiad_med.metrics.bootstrap import Estimate
from multiad_med.networks import ImageStudent, MultiAD, TokenLevels, build_multiad
from multiad_med.testing.networks import TinyFeatures, tiny_multiad

SIZE = (32, 48)


@pytest.fixture
def network() -> MultiAD:
    torch.manual_seed(0)
    network = tiny_multiad(fusion="sum", sigma=1).eval()
    network.pixel_threshold.fill_(0.5)
    return network


@pytest.fixture
def slices() -> tuple[Tensor, Tensor]:
    """Twelve grey images of little noise."""
    images = 0.4 + 0.02 * torch.rand(12, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    return images, torch.ones(12, 1, *SIZE, dtype=torch.bool)


def after(operations: list[Any]) -> set[str]:
    """Types of the operations that come after some."""
    found: dict[str, str] = {}
    waiting = list(operations)
    while waiting:
        for output in waiting.pop().outputs():
            for consumer in output.get_target_inputs():
                op = consumer.get_node()
                if op.get_friendly_name() not in found:
                    found[op.get_friendly_name()] = op.get_type_name()
                    waiting.append(op)
    return set(found.values())


class Brightness(MultiAD):
    """It finds most pseudo-anomalies: how far pixels are from the image's median."""

    def raw_map(self, x: Tensor) -> Tensor:
        return (x - x.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)).abs()


@torch.no_grad()
def test_int8_is_near_the_network_and_stays_float32_behind_the_features(
    network: MultiAD, slices: tuple[Tensor, Tensor]
) -> None:
    pytest.importorskip("nncf", reason="the extra `int8` is not installed")
    images = slices[0].expand(-1, 3, -1, -1)
    fast = Int8Network(network, images)
    expected = network.raw_map(images)
    difference = (fast.raw_map()(images) - expected).abs()
    assert 0 < difference.max() < 0.05 * expected.mean()
    network.pixel_threshold.fill_(0.1)  # set after it was quantised
    model = fast.model(calibrated=True)
    operations = model.get_ordered_ops()
    assert "FakeQuantize" in {op.get_type_name() for op in operations}
    distances = [op for op in operations if op.get_type_name() == "ReduceSum"]
    assert "FakeQuantize" not in after(distances)
    m = fast.raw_map()(images)
    torch.testing.assert_close(compiled(model)(images), m / (m + 0.1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_same_maps_lose_nothing(network: MultiAD, slices: tuple[Tensor, Tensor]) -> None:
    lost = accuracy_lost(network, network.raw_map, slices)
    assert lost.images == 12
    assert [(f.value, f.low, f.high) for f in lost.falls.values()] == [(0, 0, 0)] * 2
    assert lost.acceptable


@torch.no_grad()
def test_maps_that_find_less_are_not_accepted(slices: tuple[Tensor, Tensor]) -> None:
    def noise(x: Tensor) -> Tensor:
        return torch.rand(len(x), 1, *SIZE, generator=torch.Generator().manual_seed(2))

    network = Brightness(TinyFeatures(), ImageStudent(TinyFeatures())).eval()
    before = network(slices[0])
    lost = accuracy_lost(network, noise, slices)
    assert torch.equal(network(slices[0]), before)  # its own again
    fall = lost.falls["image AUROC"]
    assert 0.1 < fall.low < fall.value < fall.high
    assert lost.falls["pixel average precision"].low > 0.02
    assert not lost.acceptable
    assert "12 normal images" in str(lost)
    assert "must be below 0.01" in str(lost)


def test_it_is_the_upper_bound_that_counts() -> None:
    none = Estimate(0.0, 0.0, 0.0)

    def lost(auroc: Estimate, precision: Estimate) -> AccuracyLost:
        return AccuracyLost({"image AUROC": auroc, "pixel average precision": precision}, 9)

    assert lost(Estimate(0.005, 0, 0.0099), Estimate(0.01, 0, 0.0199)).acceptable
    assert not lost(Estimate(0.005, 0, 0.01), none).acceptable
    assert not lost(none, Estimate(0.005, -0.1, 0.02)).acceptable
    assert not lost(Estimate(0.0, math.nan, math.nan), none).acceptable  # of a single image


@torch.no_grad()
def test_aligned_categories_stay_aligned(slices: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("nncf", reason="the extra `int8` is not installed")
    torch.manual_seed(0)
    network = build_multiad(
        "efficientnet_lite0_decoder",
        teacher="multiad_med.testing.networks.TinyFeatures",
        teacher_weights="random",
        fusion="sum",
        sigma=1.0,
        align_categories=True,
    ).eval()
    images = slices[0].expand(-1, 3, -1, -1)
    (alignment,) = network.alignment
    assert isinstance(alignment, TokenLevels)
    alignment.levels.fill_(2)  # twice the typical one, whichever images are nearest
    expected = network.raw_map(images)
    plain = network.fused_map(network.distances(images), list(images.shape[2:]))
    torch.testing.assert_close(expected, plain / 2)
    found = Int8Network(network, images).raw_map()(images)
    assert (found - expected).abs().max() < 0.05 * expected.mean()
