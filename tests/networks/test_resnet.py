"""ResNet features: equal to torchvision's, of the published size, with the geometry of a trous."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from multiad_med.networks import RESNETS, ResNetFeatures

REFERENCE = Path(__file__).parents[1] / "reference" / "resnet_reference.pt"
# Published counts (torchvision's model tables) less the classifier: 512 or 2048 inputs, 1000 classes.
PARAMETERS = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "wide_resnet50_2": 68_883_240 - 2_049_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    count = sum(p.numel() for p in ResNetFeatures(name).parameters())
    assert count == PARAMETERS[name]
    if name == "wide_resnet50_2":
        assert count == 66_834_240


@pytest.mark.slow
@pytest.mark.parametrize("name", RESNETS)
def test_features_equal_stored_activations_of_torchvision(name: str) -> None:
    """Weights and input come from the formula of tests/reference/make_resnet_reference.py."""
    from tests.reference.make_resnet_reference import fill, probe

    reference = torch.load(REFERENCE, weights_only=True)[name]
    network = ResNetFeatures(name).eval()
    assert list(network.state_dict()) == reference["keys"]
    fill(network)
    with torch.no_grad():
        features = network(probe())
    for stage, (feature, expected) in enumerate(zip(features, reference["features"], strict=True)):
        sample = feature.flatten()[:: max(1, feature.numel() // 500)][:500]
        assert (sample - expected).abs().max() <= 1e-5 * expected.abs().max(), f"stage {stage + 1}"


@pytest.mark.parametrize("name", RESNETS)
def test_features_equal_torchvision_where_it_can_be_imported(name: str) -> None:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    from tests.reference.make_resnet_reference import stage_features

    torch.manual_seed(0)
    theirs = getattr(models, name)(weights=None).eval()
    ours = ResNetFeatures(name).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        for a, b in zip(ours(x), stage_features(theirs, x), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_a_dilated_convolution_sums_pixels_r_apart() -> None:
    """Eq. 1 by hand: y[i, j] = sum over m, n of x[i + r m, j + r n] w[m, n], 0 outside."""
    torch.manual_seed(0)
    convolution = ResNetFeatures("resnet18", output_stride=4).layer4[1].conv2
    rate, size = convolution.dilation[0], 20
    assert rate == 8
    x = torch.zeros(1, 512, size, size)
    x[0, 5] = torch.randn(size, size)
    weight = convolution.weight[7, 5]
    with torch.no_grad():
        y = convolution(x)[0, 7]
    for i, j in ((10, 9), (0, 0), (19, 3)):
        expected = sum(
            float(x[0, 5, i + rate * m, j + rate * n] * weight[m + 1, n + 1])
            for m in (-1, 0, 1)
            for n in (-1, 0, 1)
            if 0 <= i + rate * m < size and 0 <= j + rate * n < size
        )
        assert float(y[i, j]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_shapes_follow_the_output_stride(name: str, output_stride: int) -> None:
    network = ResNetFeatures(name, output_stride=output_stride).eval()
    with torch.no_grad():
        features = network(torch.zeros(1, 3, 64, 96))
    expected = [min(s, output_stride) for s in (4, 8, 16, 32)]
    assert network.strides == tuple(expected)
    for feature, channels, stride in zip(features, network.channels, expected, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_dilation_in_place_of_stride_gives_the_strided_features_at_every_second_location(
    name: str,
) -> None:
    torch.manual_seed(0)
    strided = ResNetFeatures(name, output_stride=32).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = strided(x)
        for output_stride in (16, 8, 4):
            dilated = ResNetFeatures(name, output_stride=output_stride).eval()
            dilated.load_state_dict(strided.state_dict())
            for ours, theirs in zip(dilated(x), expected, strict=True):
                step = ours.shape[-1] // theirs.shape[-1]
                scale = theirs.abs().max()
                assert (ours[..., ::step, ::step] - theirs).abs().max() <= 1e-5 * scale


# By hand. A basic block has two 3x3, a bottleneck one. Stem and pooling see 11 pixels at stride 4.
# resnet18: stage 1 adds 4 * 2 * 4 = 32; stages 2-4 add 2 * (stride before) + 3 * 2 * stride.
# wide_resnet50_2: stage 1 adds 3 * 8 = 24; the others 2 * (stride before) + (blocks - 1) * 2 * stride.
RECEPTIVE_FIELDS = {"resnet18": (43, 99, 211, 435), "wide_resnet50_2": (35, 91, 267, 427)}


def _as_impulse_detector(network: ResNetFeatures) -> ResNetFeatures:
    """Positive weights and average pooling: a location's gradient is positive where it sees."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    network.maxpool = nn.AvgPool2d(3, stride=2, padding=1)
    return network.double().eval()


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [32, 8])
@pytest.mark.parametrize("name", RECEPTIVE_FIELDS)
def test_receptive_field_is_the_one_computed_by_hand(name: str, output_stride: int) -> None:
    network = _as_impulse_detector(ResNetFeatures(name, output_stride=output_stride))
    # A strip is enough: receptive fields are square.
    x = torch.ones(1, 3, 64, 1024, dtype=torch.double, requires_grad=True)
    for feature, expected in zip(network(x), RECEPTIVE_FIELDS[name], strict=True):
        centre = feature[0, 0, feature.shape[2] // 2, feature.shape[3] // 2]
        (gradient,) = torch.autograd.grad(centre, x, retain_graph=True)
        columns = gradient[0].sum(dim=(0, 1)).nonzero().flatten()
        assert int(columns[-1] - columns[0]) + 1 == expected


def test_se_starts_as_the_identity_and_keeps_torchvision_keys() -> None:
    torch.manual_seed(0)
    plain = ResNetFeatures("resnet18").eval()
    with_se = ResNetFeatures("resnet18", se=True).eval()
    incompatible = with_se.load_state_dict(plain.state_dict(), strict=False)
    assert not incompatible.unexpected_keys
    assert all(".se." in key for key in incompatible.missing_keys)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(plain(x), with_se(x), strict=True):
            assert torch.equal(a, b)


def test_unknown_choices_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"resnet999.*resnet18"):
        ResNetFeatures("resnet999")
    with pytest.raises(ValueError, match=r"32, 16, 8 or 4, got 64"):
        ResNetFeatures("resnet18", output_stride=64)
