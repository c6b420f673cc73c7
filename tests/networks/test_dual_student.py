"""Two students side by side: neither sees what the other does; presets put their stages in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multiad_med.networks import (
    DinoFeatures,
    DualStudent,
    MultiAD,
    SemanticStudent,
    TokenDecoder,
    VisionTransformerSize,
    WeightsError,
    build_extractor,
    build_multiad,
)
from multiad_med.testing.networks import tiny_dino
from multiad_med.utils.errors import InputError

HERE = __name__


class TinyDino(DinoFeatures):
    """A teacher that is built without arguments."""

    def __init__(self) -> None:
        super().__init__(VisionTransformerSize(dim=32, depth=4, heads=2, registers=4, grid=4))


def _pair() -> tuple[DinoFeatures, DualStudent]:
    torch.manual_seed(0)
    local = TokenDecoder(32, 2, blocks=2, narrow=8)
    semantic = SemanticStudent(96, image_size=28, dim=16, depth=2, heads=2, patch=14)
    return tiny_dino(), DualStudent(local, semantic).eval()


def test_the_local_part_sees_features_alone_and_the_semantic_part_the_image_alone() -> None:
    teacher, student = _pair()
    image = torch.randn(2, 3, 56, 70)
    features = [f.detach().requires_grad_() for f in teacher(image)]
    image.requires_grad_()
    found = student(image, features)
    assert [tuple(f.shape) for f in found] == [(2, 32, 4, 5), (2, 32, 4, 5), (2, 96, 1, 1)]

    def seen(of: Tensor) -> list[bool]:
        gradients = torch.autograd.grad(
            of.square().sum(), [image, *features], retain_graph=True, allow_unused=True
        )
        return [g is not None and bool(g.any()) for g in gradients]

    # Image, both groups, token, and what a decoder reads.
    assert seen(found[0]) == seen(found[1]) == [False, False, False, False, True]
    assert seen(found[2]) == [True, False, False, False, False]


@torch.no_grad()
def test_changed_inputs_change_their_own_part_alone() -> None:
    teacher, student = _pair()
    image = torch.randn(1, 3, 56, 56)
    features = teacher(image)
    before = student(image, features)
    other_image = student(image + 1, features)
    other_features = student(image, [f + torch.randn_like(f) for f in features])
    assert [torch.equal(a, b) for a, b in zip(before, other_image, strict=True)] == [True] * 2 + [
        False
    ]
    assert [torch.equal(a, b) for a, b in zip(before, other_features, strict=True)] == [
        False
    ] * 2 + [True]


def _dual(preset: str = "dual_lite2", **given: Any) -> MultiAD:
    return build_multiad(preset, teacher_weights="random", **given).eval()


@torch.no_grad()
def test_a_convolutional_teacher_is_given_a_token_as_its_last_stage() -> None:
    torch.manual_seed(0)
    network = _dual()
    assert network.stages == [1, 2, 3, 5]
    assert network.fused == [1, 2, 5]
    assert network.strides == (4, 8, 16, 0)
    teacher, student = network.features(torch.rand(2, 3, 64, 96))
    shapes = [tuple(f.shape) for f in student]
    assert shapes == [tuple(f.shape) for f in teacher]
    assert shapes[-1] == (2, 120 + 352, 1, 1)
    assert network.fusion.weights.tolist() == [0.5, 0.5, 0.0, 1.0]
    assert network(torch.rand(2, 3, 64, 96)).shape == (2, 2, 64, 96)


@pytest.mark.parametrize("preset", ["dual_dinov2_s", "dual_lite2"])
@torch.no_grad()
def test_a_vision_transformer_has_its_token_in_the_middle(preset: str) -> None:
    network = _dual(preset, teacher=f"{HERE}.TinyDino")
    assert network.stages == network.fused == [1, 2, 3]
    assert network.fusion.weights.tolist() == [0.5, 0.5, 1.0]
    assert isinstance(network.student, DualStudent)
    assert isinstance(network.student.local, TokenDecoder)
    teacher, student = network.features(torch.rand(2, 3, 56, 70))
    shapes = [(2, 32, 4, 5), (2, 32, 4, 5), (2, 96, 1, 1)]
    assert [tuple(f.shape) for f in teacher] == [tuple(f.shape) for f in student] == shapes
    assert network(torch.rand(2, 3, 50, 61)).shape == (2, 2, 50, 61)


def test_dinomaly_is_the_decoder_alone_and_a_token_can_be_looked_at_by_an_expert() -> None:
    network = _dual("dinomaly", teacher=f"{HERE}.TinyDino")
    assert network.stages == network.fused == [1, 2]
    assert not network.teacher.recentred
    assert network(torch.rand(1, 3, 56, 56)).shape == (1, 1, 56, 56)
    network = _dual("dinomaly", teacher=f"{HERE}.TinyDino", experts=["token_gaussian"])
    assert network(torch.rand(1, 3, 56, 56)).shape == (1, 2, 56, 56)


def test_stages_can_be_named() -> None:
    network = _dual(stages=["stride8", "stride16", "token"], fused=["stride16", "token"])
    assert network.stages == [2, 3, 5]
    assert network.fused == [3, 5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"stages": [1, 4]},
            r"'dual' gives stages \[1, 2, 3\] of this teacher, and stages \[1, 4\]",
        ),
        ({"student": "decoder", "stages": [1, "token"]}, r"'decoder' gives stages \[1, 2\] of"),
    ],
)
def test_stages_that_a_student_does_not_give_are_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _dual("dual_dinov2_s", teacher=f"{HERE}.TinyDino", fused=[1], **given)


def test_only_tokens_fused_are_refused() -> None:
    for given in ({"fused": ["token"]}, {"stages": ["token"], "fused": ["token"]}):
        with pytest.raises(InputError, match="No map is fused, only tokens of the whole image"):
            _dual(**given)
    with pytest.raises(InputError, match="No map is fused"):
        _dual("neighbours", experts=["token_neighbours", "token_gaussian"])


def test_recentred_is_of_a_vision_transformer() -> None:
    with pytest.raises(InputError, match="recentred is of a DINOv2 teacher"):
        _dual(recentred=True)
    assert not _dual("dual_dinov2_s", teacher=f"{HERE}.TinyDino", recentred=False).teacher.recentred


def test_a_token_has_no_whitened_residual() -> None:
    with pytest.raises(InputError, match="choose 'cosine'"):
        _dual(residual="whitened")


@pytest.mark.parametrize("size", [(13, 56), (56, 5)])
def test_an_image_below_one_patch_is_refused(size: tuple[int, int]) -> None:
    network = _dual("dual_dinov2_s", teacher=f"{HERE}.TinyDino")
    with pytest.raises(InputError, match="at least one patch, 14x14 pixels; got"):
        network(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("preset", "teacher", "other"),
    [
        ("dual_lite2", None, "dinov2_vits14_reg"),
        ("dinomaly", "dinov2_vits14_reg", "efficientnet_lite2"),
    ],
)
def test_weights_of_another_kind_of_teacher_are_refused(
    preset: str, teacher: str | None, other: str, tmp_path: Path
) -> None:
    torch.save(build_extractor(other).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"weights\.pt does not hold weights of"):
        build_multiad(preset, teacher=teacher, teacher_weights=tmp_path / "weights.pt")
