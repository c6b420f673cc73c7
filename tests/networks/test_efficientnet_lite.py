"""EfficientNet-Lite features: equal to the reference implementation's, of the published sizes."""

from __future__ import annotations

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import get_model_params
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks import (
    EFFICIENTNET_LITES,
    EfficientNetLite0Features,
    EfficientNetLiteFeatures,
    load_pretrained,
)
from multiad_med.networks.multiad import IMAGENET_MEAN, IMAGENET_STD
from multiad_med.networks.weights import find_weights
from tests.reference.make_resnet_reference import fill

# The last block at strides 4, 8, 16 and 32: the repeats of the groups but the first, times the
# factor of depth and rounded up, are 2, 2, 3, 3, 4 of Lite0 and 3, 3, 4, 4, 5 of Lite1 and Lite2.
ENDS = {
    "efficientnet_lite0": (2, 4, 10, 15),
    "efficientnet_lite1": (3, 6, 14, 20),
    "efficientnet_lite2": (3, 6, 14, 20),
}
CHANNELS = {
    "efficientnet_lite0": (24, 40, 112, 320),
    "efficientnet_lite1": (24, 40, 112, 320),
    "efficientnet_lite2": (24, 48, 120, 352),
}
# Published as 4.7, 5.4 and 6.1 million, with the head: a convolution to 1280 channels, its batch norm,
# and 1000 classes.
PARAMETERS = {
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}


def reference(variant: str) -> EfficientNet:
    """The package's network for any even size; by default it pads for the size of its training."""
    blocks, parameters = get_model_params(variant.replace("_", "-"), {})
    return EfficientNet(blocks, parameters._replace(image_size=None)).eval()


def assert_same_features(
    variant: str, network: EfficientNetLiteFeatures, other: EfficientNet, x: Tensor
) -> None:
    expected: list[Tensor] = []
    for index in ENDS[variant]:
        other._blocks[index].register_forward_hook(lambda m, a, out: expected.append(out))
    with torch.no_grad():
        other.extract_features(x)
        features = network(x)
    for feature, wanted in zip(features, expected, strict=True):
        assert wanted.std() > 1e-3
        assert (feature - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("variant", EFFICIENTNET_LITES)
def test_features_equal_the_reference_implementation(variant: str) -> None:
    other = reference(variant)
    fill(other)
    network = EfficientNetLiteFeatures(variant).eval()
    head = ("_conv_head.", "_bn1.", "_fc.")
    network.load_state_dict({k: v for k, v in other.state_dict().items() if not k.startswith(head)})
    x = torch.randn(1, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    assert_same_features(variant, network, other, x)


def photograph(name: str) -> Tensor:
    """An image of scikit-image, ``(1, 3, 256, 256)``, normalised."""
    from skimage import data

    x = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
    side = min(x.shape[2:])
    top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
    x = x[..., top : top + side, left : left + side]
    x = F.interpolate(x, size=(256, 256), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


@pytest.mark.slow
@pytest.mark.parametrize("variant", EFFICIENTNET_LITES)
def test_the_packages_weights_classify_and_are_ours(variant: str) -> None:
    path = find_weights(variant)
    if path is None:
        pytest.skip(f"the package with the weights of {variant} is not installed")
    other = reference(variant)
    other.load_state_dict(torch.load(path, weights_only=True))
    x = torch.cat([photograph("chelsea"), photograph("coffee")])
    with torch.no_grad():
        assert other(x).argmax(1).tolist() == [285, 967]  # Egyptian cat, espresso
    network = EfficientNetLiteFeatures(variant).eval()
    load_pretrained(network, variant)
    assert_same_features(variant, network, other, x)


@pytest.mark.parametrize("variant", EFFICIENTNET_LITES)
def test_parameter_counts_are_the_published_ones_without_head(variant: str) -> None:
    count = sum(p.numel() for p in EfficientNetLiteFeatures(variant).parameters())
    last = CHANNELS[variant][-1]
    assert count == PARAMETERS[variant] - (last * 1280 + 2 * 1280) - (1280 * 1000 + 1000)


@pytest.mark.parametrize("variant", EFFICIENTNET_LITES)
def test_shapes_and_strides(variant: str) -> None:
    network = EfficientNetLiteFeatures(variant, se=True).eval()
    assert network.channels == CHANNELS[variant]
    assert network.strides == (4, 8, 16, 32)
    with torch.no_grad():
        features = network(torch.zeros(1, 3, 64, 96))
    for feature, channels, stride in zip(features, network.channels, network.strides, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


def test_se_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    plain, with_se = EfficientNetLiteFeatures().eval(), EfficientNetLiteFeatures(se=True).eval()
    with_se.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(plain(x), with_se(x), strict=True):
            assert torch.equal(a, b)


def test_the_old_name_is_lite0() -> None:
    assert EfficientNetLite0Features().channels == CHANNELS["efficientnet_lite0"]


def test_an_unknown_variant_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'efficientnet_lite3'.*\['efficientnet_lite0'"):
        EfficientNetLiteFeatures("efficientnet_lite3")
