"""What travels in federated training, how it is averaged, and whose thresholds a model has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from multiad_med.networks import WeightsError, read_card
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import calibrate
from multiad_med.training.federated import StudentWeights, calibrate_site, weighted_mean


def test_mean_is_weighted() -> None:
    one, two = {"w": torch.tensor([1.0, 5.0])}, {"w": torch.tensor([3.0, -3.0])}
    mean = weighted_mean([one, two], [6, 2])
    assert mean["w"].tolist() == [1.5, 3.0]
    assert mean["w"].dtype == torch.float32


def test_mean_of_equal_states_is_that_state_bit_by_bit() -> None:
    state = {"w": torch.rand(1000, generator=torch.Generator().manual_seed(0))}
    assert torch.equal(weighted_mean([state] * 3, [5, 1, 7])["w"], state["w"])


@pytest.mark.parametrize(
    ("states", "weights", "message"),
    [
        ([], [], "got 0 states and 0 weights"),
        ([{"a": torch.ones(1)}], [1, 2], "got 1 states and 2 weights"),
        ([{"a": torch.ones(1)}] * 2, [1, 0], "must be positive"),
        (
            [{"a": torch.ones(1)}, {"b": torch.ones(1)}],
            [1, 1],
            r"State 1 .*state 0.*\['a', 'b'\].*\b2\b",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(
    states: list[dict[str, Tensor]], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_mean(states, weights)


def test_only_the_students_weights_and_statistics_travel_and_as_copies() -> None:
    network = tiny_multiad()
    sent = StudentWeights()(ExchangeObject(weights=network.state_dict())).weights
    expected = {f"student.{name}" for name, _ in network.student.named_parameters()} | {
        "student.backbone.norm.running_mean",
        "student.backbone.norm.running_var",
    }
    assert sent.keys() == expected
    for name, value in network.state_dict().items():
        if name in sent:
            assert torch.equal(sent[name], value)
            assert sent[name].data_ptr() != value.data_ptr()


def _normals(brightness: float) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [{"image": brightness * torch.rand(4, 3, 64, 64, generator=generator)} for _ in range(3)]


def test_each_site_reaches_its_rate_on_its_own_normals_with_one_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = tiny_multiad()
    calibrate(network, _normals(0.7))
    torch.save(network.state_dict(), tmp_path / "global.pt")
    states = []
    for name, brightness in (("dark", 0.3), ("bright", 1.0)):
        calibrate_site(
            network,
            _normals(brightness),
            normal=_normals(brightness),
            source=tmp_path / "global.pt",
            target=tmp_path / name / "model.pt",
            card={"domain": name},
            pixel_false_positive_rate=0.05,
        )
        with torch.no_grad():
            maps = torch.cat([network(b["image"]) for b in _normals(brightness)])
        assert float((maps >= 0.5).float().mean()) == pytest.approx(0.05, abs=1e-3)
        states.append(torch.load(tmp_path / name / "model.pt", weights_only=True))
    dark, bright = states
    assert [read_card(tmp_path / n / "model.pt").domain for n in ("dark", "bright")] == [
        "dark",
        "bright",
    ]
    tested = [read_card(tmp_path / n / "model.pt").self_test for n in ("dark", "bright")]
    assert [found.images for found in tested] == [12, 12]
    assert tested[0] != tested[1]
    assert not torch.equal(dark["pixel_threshold"], bright["pixel_threshold"])
    for name, value in dark.items():
        if name.startswith(("student.", "teacher.")):
            assert torch.equal(value, bright[name]), name


def test_a_global_model_of_another_preset_is_refused_and_nothing_written(tmp_path: Path) -> None:
    torch.save({"student.w": torch.ones(1)}, tmp_path / "global.pt")
    with pytest.raises(WeightsError, match=r"global\.pt\b.*weights"):
        calibrate_site(
            tiny_multiad(),
            _normals(1.0),
            normal=_normals(1.0),
            source=tmp_path / "global.pt",
            target=tmp_path / "model.pt",
            card={},
        )
    assert not (tmp_path / "model.pt").exists()
