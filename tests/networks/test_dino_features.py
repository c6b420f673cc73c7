"""The stages of a DINOv2 teacher, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multiad_med.networks import (
    DinoFeatures,
    FeatureExtractor,
    ImageStudent,
    MultiAD,
    VisionTransformerSize,
)
from multiad_med.testing.networks import tiny_dino
from multiad_med.utils.errors import InputError


def _normalised(x: Tensor, dim: int) -> Tensor:
    """Zero mean and unit variance over a dimension."""
    return (x - x.mean(dim, keepdim=True)) / (
        x.var(dim, unbiased=False, keepdim=True) + 1e-6
    ) ** 0.5


@pytest.mark.parametrize(
    ("depth", "groups", "semantic"),
    [
        (12, [[3, 4, 5, 6], [7, 8, 9, 10]], [6, 9, 12]),
        (24, [[5, 7, 9, 11], [13, 15, 17, 19]], [12, 18, 24]),
        (4, [[1, 2], [3, 4]], [2, 3, 4]),
        (5, [[1, 2, 3], [4]], [2, 3, 5]),
        (6, [[2, 3], [4, 5]], [3, 4, 6]),
    ],
)
def test_blocks_of_the_groups_and_of_the_class_tokens(
    depth: int, groups: list[list[int]], semantic: list[int]
) -> None:
    network = DinoFeatures(VisionTransformerSize(8, depth, 1, grid=2))
    assert network.groups == groups
    assert network.semantic == semantic


def test_fewer_than_four_blocks_are_refused() -> None:
    with pytest.raises(InputError, match="depth must be at least 4 blocks, got 3"):
        DinoFeatures(VisionTransformerSize(8, 3, 1))


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("recentred", [False, True])
@torch.no_grad()
def test_stages_by_hand(registers: int, recentred: bool) -> None:
    """Of four blocks the groups are 1, 2 and 3, 4; class tokens are of 2, 3 and 4."""
    network = tiny_dino(registers=registers, recentred=recentred)
    assert isinstance(network, FeatureExtractor)
    assert network.channels == (32, 32, 96, 32)
    assert network.strides == (14, 14, 0, 14)
    torch.nn.init.normal_(network.norm.weight)
    x = torch.randn(2, 3, 28, 42)
    after = network.forward_tokens(x, [1, 2, 3, 4])
    early, late, semantic, read = network(x)
    for stage, group in ((early, after[:2]), (late, after[2:])):
        assert stage.shape == (2, 32, 2, 3)
        mean = (group[0] + group[1]) / 2
        at = mean[:, 1 + registers + 4]  # row 1, column 1 of 3
        expected = _normalised(at - mean[:, 0], 1) if recentred else at
        torch.testing.assert_close(stage[:, :, 1, 1], expected, atol=1e-5, rtol=1e-5)
    classes = [after[1][:, 0], after[2][:, 0], network.norm(after[3])[:, 0]]
    expected = torch.cat([_normalised(c, 1) for c in classes], dim=1)
    torch.testing.assert_close(semantic, expected[:, :, None, None], atol=1e-5, rtol=1e-5)
    mean = sum(after)[:, 1 + registers :] / 4
    torch.testing.assert_close(read[:, :, 1, 2], mean[:, 5], atol=1e-5, rtol=1e-5)
    assert read.shape == (2, 32, 2, 3)


@torch.no_grad()
def test_recentring_takes_off_what_class_and_patches_share() -> None:
    """An offset of all tokens in the last block alone moves no recentred stage, and the others."""
    recentred, plain = tiny_dino(), tiny_dino(recentred=False)
    plain.load_state_dict(recentred.state_dict())
    x = torch.randn(1, 3, 56, 56)
    before, plain_before = recentred(x)[1], plain(x)[1]
    for network in (recentred, plain):
        network.blocks[3].mlp.fc2.bias += torch.arange(32.0)
    torch.testing.assert_close(recentred(x)[1], before, atol=1e-4, rtol=0)
    assert (plain(x)[1] - plain_before).abs().max() > 1


def test_the_teacher_is_the_same_after_training_the_student() -> None:
    teacher = tiny_dino()
    network = MultiAD(teacher, ImageStudent(tiny_dino())).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    optimiser = torch.optim.SGD(network.student.parameters(), lr=0.1)
    ours, theirs = network.features(torch.rand(2, 3, 56, 56))
    sum((a - b).square().mean() for a, b in zip(ours, theirs, strict=True)).backward()
    optimiser.step()
    assert not teacher.training
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(p.requires_grad for p in teacher.parameters())
