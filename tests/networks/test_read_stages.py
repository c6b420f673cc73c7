"""Only what somebody reads is computed, and is then what it was when all was."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks import (
    MultiAD,
    NearestNormal,
    WithSemanticToken,
    build_extractor,
    build_multiad,
    cosine_distance_maps,
)
from multiad_med.testing.networks import TinyFeatures, tiny_dino
from multiad_med.training import calibrate, fit_experts

IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _calls(**modules: nn.Module) -> Counter[str]:
    """Count the calls of modules from now on."""
    calls: Counter[str] = Counter()
    for name, module in modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "vgg16"])
@torch.no_grad()
def test_stages_deeper_than_all_that_are_read_are_not_computed(name: str) -> None:
    torch.manual_seed(0)
    extractor = build_extractor(name).eval()
    whole = extractor(IMAGE)
    scripted = torch.jit.script(extractor)
    deepest = {"resnet18": "layer4", "efficientnet_lite0": "_blocks.15", "vgg16": "features.30"}
    calls = _calls(deepest=extractor.get_submodule(deepest[name]))
    found = extractor(IMAGE, [1, 3])
    assert not calls
    assert all(torch.equal(a, b) for a, b in zip(found, whole[:3], strict=True))
    assert len(scripted(IMAGE, [2])) == 2
    assert len(scripted(IMAGE)) == 4
    extractor(IMAGE, [4])
    assert calls == {"deepest": 1}


@torch.no_grad()
def test_a_vision_transformer_without_its_token_leaves_out_the_last_blocks() -> None:
    teacher = tiny_dino()
    whole = teacher(IMAGE)
    teacher.semantic = [1, 2, 4]
    calls = _calls(last=teacher.norm)
    first, second, token, fourth = teacher(IMAGE, [1, 2, 4])
    assert not calls
    assert token.shape == (2, 0, 1, 1)
    for found, expected in zip(
        (first, second, fourth), (whole[0], whole[1], whole[3]), strict=True
    ):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_a_token_is_made_where_it_is_read_and_needs_the_deepest_stages() -> None:
    teacher = WithSemanticToken(build_extractor("resnet18")).eval()
    calls = _calls(deepest=teacher.teacher.layer4)
    assert len(teacher(IMAGE, [1, 2])) == 2
    assert not calls
    assert torch.equal(teacher(IMAGE, [5])[4], teacher(IMAGE)[4])
    assert calls == {"deepest": 2}


def test_the_papers_student_of_stages_1_to_3_computes_no_stage_4() -> None:
    network = build_multiad(
        "resnet18", teacher_weights="random", output_stride=32, stages=(1, 2, 3)
    )
    calls = _calls(teacher=network.teacher.layer4, student=network.student.backbone.layer4)
    teacher, student = network.train().features(IMAGE)
    assert [f.shape for f in teacher] == [f.shape for f in student]
    with torch.no_grad():
        network.eval()(IMAGE)
    assert len(network.teacher_features(IMAGE)) == 3
    assert not calls


def test_experts_alone_have_the_stages_computed_that_they_look_at() -> None:
    network = build_multiad("neighbours", teacher="resnet18", teacher_weights="random").eval()
    assert network.expert_reads == [2, 3]
    calls = _calls(third=network.teacher.layer3, fourth=network.teacher.layer4)
    with torch.no_grad():
        network(IMAGE)
    assert calls == {"third": 1}
    assert network.features(IMAGE) == ([], [])
    assert network.teacher_features(IMAGE) == []
    assert calls == {"third": 1}


DECODER = {
    "preset": "efficientnet_lite0_decoder",
    "teacher": "resnet18",
    "teacher_weights": "random",
}


@torch.no_grad()
def test_stages_that_are_distilled_and_not_fused_cost_a_map_nothing() -> None:
    network = build_multiad(**DECODER, fused=[2, 3]).eval()
    decoder: Any = network.student
    calls = _calls(finest=decoder.blocks[2], first=decoder.heads[3], fourth=decoder.heads[0])
    network(IMAGE)
    assert not calls
    assert len(network.distances(IMAGE)) == 3
    assert calls == {"finest": 1, "first": 1}  # stage 4 is not distilled


def _by_hand(network: MultiAD, image: Tensor) -> Tensor:
    """The map as before: all stages, each map enlarged for itself, their sum smoothed by convolution."""
    normalised = (image - network.mean) / network.std
    teacher = network.teacher(normalised)
    student = network.student(normalised, teacher)
    maps = cosine_distance_maps(
        [teacher[s - 1] for s in network.stages], [student[s - 1] for s in network.stages]
    )
    maps += [expert(teacher) for expert in network.experts]
    total = torch.zeros(1)
    for level, weight, x in zip(network.fusion.levels, network.fusion.weights, maps, strict=True):
        total = total + weight * F.interpolate(F.relu(level(x)), image.shape[2:], mode="bilinear")
    kernel, r = network.fusion.smoothing.kernel, network.fusion.smoothing.radius
    total = F.pad(total, [r, r, r, r], mode="replicate")
    return F.conv2d(F.conv2d(total, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


@pytest.mark.parametrize("fusion", ["hazard", "zscore"])
@torch.no_grad()
def test_maps_equal_those_of_all_stages_enlarged_one_by_one(fusion: str) -> None:
    torch.manual_seed(0)
    network = build_multiad(**DECODER, fused=[2, 3], experts=["nearest_normal"], fusion=fusion)
    images = torch.rand(6, 3, 64, 80)
    fit_experts(network, [{"image": images}])
    calibrate(network, [{"image": torch.rand(6, 3, 64, 80)}])
    found, expected = network.raw_map(images), _by_hand(network, images)
    assert found.shape == (6, 1, 64, 80)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.max())


class Whole(nn.Module):
    """A student of a user's own, which cannot be told what is read."""

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        return [feature + 0.1 for feature in teacher_features]


def test_parts_that_cannot_be_told_get_and_give_all() -> None:
    network = MultiAD(build_extractor("resnet18"), Whole(), stages=(1, 2)).eval()
    assert network.student_reads == [1, 2, 3, 4]
    assert len(network.teacher_features(IMAGE)) == 4
    plain = MultiAD(TinyFeatures(), Whole(), stages=(1, 2), experts=[NearestNormal((4, 6, 8, 10))])
    with torch.no_grad():
        assert torch.allclose(torch.jit.script(plain.eval())(IMAGE), plain(IMAGE), atol=1e-6)
