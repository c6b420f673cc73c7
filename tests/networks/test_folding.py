"""Batch norms folded into convolutions: the same features and state dict, and nothing else folded."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from multiad_med.data import state_sha256
from multiad_med.inference.export_model import export_torchscript
from multiad_med.networks import (
    DecoderStudent,
    build_extractor,
    build_multiad,
    fold_batch_norms,
    load_model,
    open_model,
)
from multiad_med.networks.folding import FoldedConv2d, FoldedNorm2d, folded_only
from multiad_med.testing.networks import TinyFeatures, tiny_multiad


def _randomised(module: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights as after a training."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
            for values, low, high in (
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.2, 0.2),
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 2.0),
            ):
                nn.init.uniform_(values, low, high)
    return module.eval()


def _count(module: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(part) is kind for part in module.modules())


def test_a_folded_convolution_is_computed_by_hand() -> None:
    pair = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)).eval()
    for values, number in (
        (pair[0].weight, 3.0),
        (pair[0].bias, 1.0),
        (pair[1].weight, 2.0),
        (pair[1].bias, 5.0),
        (pair[1].running_mean, 7.0),
        (pair[1].running_var, 16.0),
    ):
        nn.init.constant_(values, number)
    fold_batch_norms(pair)
    # (3 x + 1 - 7) / 4 * 2 + 5 = 1.5 x + 2
    assert pair[0].folded_weight.item() == 1.5
    assert pair[0].folded_bias.item() == 2.0
    assert pair(torch.full((1, 1, 1, 1), 4.0)).item() == 8.0


@pytest.mark.parametrize(
    ("name", "folded"),
    [("resnet18", 20), ("resnet50", 53), ("efficientnet_lite0", 48), ("vgg16", 0)],
)
@torch.no_grad()
def test_every_batch_norm_of_a_teacher_is_folded_and_features_stay(name: str, folded: int) -> None:
    plain = _randomised(build_extractor(name))
    other = copy.deepcopy(plain)
    fold_batch_norms(other)
    assert _count(other, FoldedConv2d) == _count(other, FoldedNorm2d) == folded
    assert _count(other, nn.BatchNorm2d) == 0
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(plain(x), other(x), strict=True):
        assert float((a - b).abs().max()) <= 1e-5 * float(a.abs().max())
    assert list(other.state_dict()) == list(plain.state_dict())
    assert state_sha256(other) == state_sha256(plain)


@torch.no_grad()
def test_students_with_squeeze_and_excitation_fold_too() -> None:
    decoder = _randomised(DecoderStudent((4, 6, 8, 10), (4, 8, 16, 32), se=True))
    features = [torch.rand(1, c, 64 // s, 64 // s) for c, s in ((4, 4), (6, 8), (8, 16), (10, 32))]
    image = torch.rand(1, 3, 64, 64)
    before = decoder(image, features)
    fold_batch_norms(decoder)
    assert _count(decoder, nn.BatchNorm2d) == 0
    for a, b in zip(before, decoder(image, features), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


class Reader(nn.Module):
    """Reads a convolution before and after its batch norm; has another that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.shared = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.alone = nn.BatchNorm2d(3)
        self.other, self.stateless = (
            nn.Conv2d(3, 3, 1),
            nn.BatchNorm2d(3, track_running_stats=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        before = self.conv(x)
        x = before + self.norm(before)
        x = self.shared(self.twice(self.shared(self.twice(x))))
        return self.stateless(self.other(self.alone(x)))


@torch.no_grad()
def test_what_is_used_otherwise_is_not_folded() -> None:
    module = _randomised(Reader())
    x = torch.rand(2, 3, 4, 4)
    before = module(x)
    fold_batch_norms(module)
    assert _count(module, FoldedConv2d) == 0
    assert torch.equal(module(x), before)


@torch.no_grad()
def test_a_state_dict_that_is_loaded_is_folded_again_also_in_a_copy() -> None:
    wanted = _randomised(TinyFeatures())
    teacher = tiny_multiad().teacher
    for loaded in (teacher, copy.deepcopy(teacher)):
        loaded.load_state_dict(wanted.state_dict())
        x = torch.rand(1, 3, 64, 64)
        for a, b in zip(wanted(x), loaded(x), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_the_student_trains_unfolded_and_is_folded_when_a_model_is_opened(tmp_path: Path) -> None:
    network = build_multiad("resnet18", teacher_weights="random", student="decoder").eval()
    _randomised(network.student)
    assert _count(network.teacher, nn.BatchNorm2d) == _count(network.student, FoldedConv2d) == 0
    assert all(p.requires_grad for p in network.student.parameters())
    torch.save(network.state_dict(), tmp_path / "model.pt")
    opened = open_model(tmp_path / "model.pt").eval()
    assert _count(opened, nn.BatchNorm2d) == len(opened.fusion.levels)
    assert state_sha256(opened) == state_sha256(network)
    assert not any(p.requires_grad for p in opened.student.parameters())
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(opened(image), network(image), atol=1e-5, rtol=0)


def test_a_model_that_is_loaded_to_learn_more_is_not_folded(tmp_path: Path) -> None:
    trained = tiny_multiad()
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    network = tiny_multiad()
    load_model(network, tmp_path / "model.pt", trains=True)
    teacher, student = network.train().features(torch.rand(2, 3, 32, 32))
    sum(((a - b) ** 2).mean() for a, b in zip(teacher, student, strict=True)).backward()
    before = network.student.backbone.norm.weight.grad
    assert before is not None
    assert before.abs().sum() > 0


@torch.no_grad()
def test_an_exported_network_has_what_computes_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = tiny_multiad().eval()
    image = torch.rand(1, 3, 64, 64)
    expected = network(image)
    folded_only(network)
    assert "teacher.norm.weight" not in network.state_dict()
    assert torch.equal(network(image), expected)
    whole = build_multiad("efficientnet_lite0_decoder", teacher_weights="random")
    torch.save(whole.state_dict(), tmp_path / "model.pt")
    export_torchscript(tmp_path / "model.pt", tmp_path / "model.ts")
    assert (tmp_path / "model.ts").stat().st_size < 1.1 * (tmp_path / "model.pt").stat().st_size
