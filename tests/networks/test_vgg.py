"""VGG features: equal to torchvision's, of the published size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multiad_med.networks import VGGS, VGGFeatures, load_pretrained
from tests.reference.make_resnet_reference import fill, probe

REFERENCE = Path(__file__).parents[1] / "reference" / "vgg_reference.pt"
# Published counts (torchvision's model tables) less the classifier: 25088 inputs, 4096, 4096, 1000.
CLASSIFIER = (25_088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
PARAMETERS = {"vgg16": 138_357_544 - CLASSIFIER, "vgg19": 143_667_240 - CLASSIFIER}


@pytest.mark.parametrize("name", VGGS)
def test_features_equal_stored_activations_of_torchvision(name: str) -> None:
    """Weights and input come from the formula of tests/reference/make_resnet_reference.py."""
    reference = torch.load(REFERENCE, weights_only=True)[name]
    network = VGGFeatures(name).eval()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    assert list(network.state_dict()) == reference["keys"]
    fill(network)
    with torch.no_grad():
        features = network(probe())
    assert network.strides == (4, 8, 16, 32)
    for feature, channels, stride, expected in zip(
        features, network.channels, network.strides, reference["features"], strict=True
    ):
        assert feature.shape == (1, channels, 64 // stride, 64 // stride)
        sample = feature.flatten()[:: max(1, feature.numel() // 500)][:500]
        assert expected.std() > 1e-3
        assert (sample - expected).abs().max() <= 1e-5 * expected.abs().max(), f"stride {stride}"


def test_se_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    plain, with_se = VGGFeatures().eval(), VGGFeatures(se=True).eval()
    assert len(with_se.state_dict()) > len(plain.state_dict())
    with_se.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for a, b in zip(plain(x), with_se(x), strict=True):
            assert torch.equal(a, b)


def test_a_file_with_torchvisions_classifier_loads(tmp_path: Path) -> None:
    source, target = VGGFeatures(), VGGFeatures()
    classifier = {"classifier.6.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(2)}
    torch.save({**source.state_dict(), **classifier}, tmp_path / "vgg16.pth")
    load_pretrained(target, "vgg16", file=tmp_path / "vgg16.pth")
    assert torch.equal(target.features[28].weight, source.features[28].weight)


def test_an_unknown_architecture_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'vgg11'.*\['vgg16', 'vgg19'\]"):
        VGGFeatures("vgg11")
