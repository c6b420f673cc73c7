"""EfficientNet-Lite0 features: equal to the reference implementation's with the real weights."""

from __future__ import annotations

import torch
from torch import Tensor

from multiad_med.networks import EfficientNetLite0Features, load_pretrained, resolve_weights


def test_features_equal_the_reference_implementation_with_imagenet_weights() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    state = torch.load(resolve_weights("efficientnet_lite0"), weights_only=True)
    reference = EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(state)
    expected: list[Tensor] = []
    for index in (2, 4, 10, 15):
        reference._blocks[index].register_forward_hook(lambda m, a, out: expected.append(out))
    network = EfficientNetLite0Features().eval()
    load_pretrained(network, "efficientnet_lite0")
    x = torch.randn(2, 3, 256, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference.extract_features(x)
        features = network(x)
    for feature, other in zip(features, expected, strict=True):
        assert torch.allclose(feature, other, atol=1e-5)


def test_parameter_count_is_the_published_one_without_head() -> None:
    # 4,652,008 published; head: 320 * 1280 + 2 * 1280, classifier 1280 * 1000 + 1000.
    count = sum(p.numel() for p in EfficientNetLite0Features().parameters())
    assert count == 4_652_008 - (320 * 1280 + 2 * 1280) - (1280 * 1000 + 1000)


def test_shapes_and_strides() -> None:
    network = EfficientNetLite0Features(se=True).eval()
    with torch.no_grad():
        features = network(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]
    assert network.channels == (24, 40, 112, 320)
    assert network.strides == (4, 8, 16, 32)


def test_se_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    plain, with_se = EfficientNetLite0Features().eval(), EfficientNetLite0Features(se=True).eval()
    with_se.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(plain(x), with_se(x), strict=True):
            assert torch.equal(a, b)
