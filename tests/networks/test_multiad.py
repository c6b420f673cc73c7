"""The Multi-AD network as a whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiad_med.networks import (
    PRESETS,
    FusionMode,
    ResNetFeatures,
    build_extractor,
    build_multiad,
    cosine_distance_maps,
)
from multiad_med.testing.networks import TinyFeatures, tiny_multiad


def test_map_has_the_image_size_and_lies_in_0_to_1() -> None:
    network = tiny_multiad().eval()
    with torch.no_grad():
        result = network(torch.rand(2, 3, 64, 96))
    assert result.shape == (2, 1, 64, 96)
    assert float(result.min()) >= 0
    assert float(result.max()) < 1


def test_half_is_the_pixel_threshold() -> None:
    network = tiny_multiad().eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        raw = network.raw_map(x)
        threshold = raw.flatten().kthvalue(3000).values
        network.pixel_threshold.fill_(float(threshold))
        calibrated = network(x)
    assert torch.equal(calibrated >= 0.5, raw >= threshold)


def test_grey_image_equals_three_equal_channels() -> None:
    network = tiny_multiad().eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1)))


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected images"):
        tiny_multiad()(torch.rand(1, 2, 64, 64))


def test_imagenet_normalisation_is_inside() -> None:
    network = tiny_multiad().eval()
    seen = []
    network.teacher.stem.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pixel = torch.tensor([0.485, 0.456 + 0.224, 0.406 - 0.225]).view(1, 3, 1, 1)
    network(pixel.expand(1, 3, 64, 64))
    assert torch.allclose(seen[0][0, :, 0, 0], torch.tensor([0.0, 1.0, -1.0]), atol=1e-6)


def test_training_mode_leaves_teacher_and_fusion_in_evaluation() -> None:
    network = tiny_multiad().train()
    assert network.student.training
    assert not any(m.training for m in network.teacher.modules())
    assert not any(m.training for m in network.fusion.modules())
    assert not any(p.requires_grad for p in network.teacher.parameters())


def test_chosen_stages_are_the_ones_compared() -> None:
    network = tiny_multiad(stages=(2, 3))
    teacher, student = network.features(torch.rand(1, 3, 64, 64))
    assert [tuple(f.shape) for f in teacher] == [(1, 6, 8, 8), (1, 8, 4, 4)]
    assert [f.shape for f in student] == [f.shape for f in teacher]
    assert network.channels == (6, 8)
    assert network.strides == (8, 16)


@pytest.mark.parametrize("stages", [(0, 1), (2, 1), (1, 1), (4, 5)])
def test_impossible_stages_are_refused(stages: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"increasing.*1 to 4"):
        tiny_multiad(stages=stages)


@pytest.mark.parametrize("fusion", ["sum", "product"])
def test_only_fused_stages_enter_the_map_while_all_are_distilled(fusion: str) -> None:
    torch.manual_seed(0)
    network = tiny_multiad(stages=(1, 2, 3), fused=(1, 3), fusion=fusion, sigma=0.0).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        teacher, student = network.features(x)
        first, last = (
            torch.nn.functional.interpolate(
                cosine_distance_maps([teacher[i]], [student[i]])[0], size=(64, 64), mode="bilinear"
            )
            for i in (0, 2)
        )
        expected = first + last if fusion == "sum" else first * last
        assert len(teacher) == 3
        assert torch.allclose(network.raw_map(x), expected, atol=1e-6)
        assert torch.allclose(torch.jit.script(network).raw_map(x), expected, atol=1e-6)


def test_a_state_dict_brings_its_own_choice_of_fused_stages() -> None:
    network = tiny_multiad(stages=(1, 2, 3))
    network.load_state_dict(tiny_multiad(stages=(1, 2, 3), fused=(1, 3)).state_dict())
    assert network.fused == [1, 3]


def test_a_network_that_fuses_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="Nothing is fused"):
        tiny_multiad(stages=(1, 2, 3), fused=())


@pytest.mark.parametrize("fused", [(2, 1), (4,), (1, 1)])
def test_stages_that_are_not_distilled_cannot_be_fused(fused: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"stages \(1, 2, 3\)"):
        tiny_multiad(stages=(1, 2, 3), fused=fused)


def test_state_dict_is_plain_and_holds_teacher_statistics_and_thresholds(tmp_path) -> None:
    network = tiny_multiad()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    for key in (
        "teacher.stem.weight",
        "student.backbone.stem.weight",
        "fusion.levels.0.running_mean",
        "mean",
        "pixel_threshold",
        "pixel_false_positive_rate",
        "score_fraction",
        "calibrated",
        "_extra_state",
    ):
        assert key in state


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"literal"}))
def test_presets_compile_to_torchscript_with_the_same_result(preset: str) -> None:
    torch.manual_seed(0)
    network = build_multiad(preset, teacher_weights="random").eval()
    scripted = torch.jit.script(network)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(scripted(x), network(x), atol=1e-6)


@pytest.mark.slow
def test_literal_preset_has_the_papers_dilations() -> None:
    teacher = build_multiad("literal", teacher_weights="random").teacher
    assert isinstance(teacher, ResNetFeatures)
    dilations = [getattr(teacher, f"layer{stage}")[-1].conv2.dilation[0] for stage in (1, 2, 3, 4)]
    assert dilations == [1, 2, 4, 8]


def test_se_is_in_the_student_alone() -> None:
    state = build_multiad("resnet18", teacher_weights="random").state_dict()
    assert any(".se." in key for key in state if key.startswith("student."))
    assert not any(".se." in key for key in state if key.startswith("teacher."))


def test_teacher_weights_are_imagenet_unless_asked_otherwise() -> None:
    first, second = (build_multiad("efficientnet_lite0") for _ in range(2))
    for a, b in zip(first.teacher.parameters(), second.teacher.parameters(), strict=True):
        assert torch.equal(a, b)
    student = dict(first.student.backbone.named_parameters())
    assert not torch.equal(first.teacher._conv_stem.weight, student["_conv_stem.weight"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_multiad("resnet"), "preset 'resnet'.*'resnet18'"),
        (lambda: build_extractor("vgg11"), "architecture 'vgg11'.*'vgg16'"),
        (
            lambda: build_extractor("efficientnet_lite0", output_stride=8),
            r"\b32\b.*_lite0\b.*got 8",
        ),
    ],
)
def test_unknown_names_list_what_exists(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_teacher_that_is_no_extractor_is_refused() -> None:
    from multiad_med.networks import ImageStudent, MultiAD

    with pytest.raises(ValueError, match=r"`channels` and `strides`"):
        MultiAD(torch.nn.Conv2d(3, 3, 1), ImageStudent(TinyFeatures()))


@settings(max_examples=15, deadline=None)
@given(height=st.integers(32, 80), width=st.integers(32, 80), batch=st.integers(1, 3))
def test_any_size_and_batch_equals_image_by_image(height: int, width: int, batch: int) -> None:
    network = tiny_multiad().eval()
    x = torch.rand(batch, 3, height, width)
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(image[None]) for image in x])
    assert together.shape == (batch, 1, height, width)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("fusion", list(FusionMode))
def test_maps_are_float32_and_equal_from_the_same_features_on_under_autocast(
    fusion: FusionMode,
) -> None:
    torch.manual_seed(0)
    network = tiny_multiad(fusion=fusion).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        teacher, student = network.features(x)
        assert teacher[0].dtype is torch.bfloat16
        cast = network.distances_of_features(teacher, student)
        whole = network(x)
    with torch.no_grad():
        plain = network.distances_of_features(
            [f.float() for f in teacher], [f.float() for f in student]
        )
        reference = network(x)
    assert {d.dtype for d in (*cast, *plain, whole)} == {torch.float32}
    torch.testing.assert_close(cast, plain, atol=1e-6, rtol=0)
    # What remains is the precision of the features.
    assert 0 < float((whole - reference).abs().max()) < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_any_precision_give_the_float32_map_of_their_values(dtype: torch.dtype) -> None:
    network = tiny_multiad().eval()
    features = [torch.rand(1, c, s, s).to(dtype) for c, s in ((4, 16), (6, 8), (8, 4), (10, 2))]
    others = [torch.rand_like(f) for f in features]
    low = network.distances_of_features(features, others)
    high = network.distances_of_features([f.float() for f in features], [f.float() for f in others])
    for a, b in zip(low, high, strict=True):
        assert a.dtype is torch.float32
        assert torch.equal(a, b)
