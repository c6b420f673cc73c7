"""The discriminator's architecture is the paper's (section 3.3)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from multiad_med.networks import DiscriminatorInput, FeatureDiscriminator, FeatureFusion


def test_four_3x3_convolutions_of_128_to_1024_filters() -> None:
    convolutions = [
        m for m in FeatureDiscriminator((64, 320)).modules() if isinstance(m, nn.Conv2d)
    ]
    assert [c.out_channels for c in convolutions] == [128, 256, 512, 1024]
    assert convolutions[0].in_channels == 320
    assert all(
        (c.kernel_size, c.stride, c.padding) == ((3, 3), (1, 1), (1, 1)) for c in convolutions
    )


def test_each_convolution_is_followed_by_batch_norm_and_leaky_relu_then_dropout_and_one_score() -> (
    None
):
    layers = [type(m).__name__ for m in FeatureDiscriminator((8,), flatten_size=(4, 4)).layers]
    block = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert layers == [*block * 4, "Identity", "Flatten", "Dropout", "Linear"]


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (5, 9)])
@pytest.mark.parametrize("source", DiscriminatorInput)
def test_any_image_size_gives_one_logit_each(
    source: DiscriminatorInput, size: tuple[int, int]
) -> None:
    h, w = size
    features = [torch.randn(3, 6, 2 * h, 2 * w), torch.randn(3, 8, h, w)]
    assert FeatureDiscriminator((6, 8), source=source)(features).shape == (3, 1)


def test_flattened_head_is_the_papers_letter_and_fixes_the_size() -> None:
    discriminator = FeatureDiscriminator((8,), flatten_size=(4, 4))
    linear = next(m for m in discriminator.modules() if isinstance(m, nn.Linear))
    assert linear.in_features == 1024 * 16
    assert discriminator([torch.randn(2, 8, 4, 4)]).shape == (2, 1)


def test_magnitude_of_the_features_does_not_matter() -> None:
    discriminator = FeatureDiscriminator((8,)).eval()
    features = torch.randn(2, 8, 4, 4)
    assert torch.allclose(discriminator([features]), discriminator([100 * features]), atol=1e-5)


def test_feature_fusion_is_relu_of_norm_of_1x1_of_both() -> None:
    torch.manual_seed(0)
    fusion = FeatureFusion(2, 3, 4).eval()
    low, up = torch.randn(1, 2, 4, 4), torch.randn(1, 3, 1, 1)
    both = torch.cat([low, up.expand(1, 3, 4, 4)], dim=1)
    weight = fusion.conv.weight[:, :, 0, 0]
    expected = torch.einsum("oc,bchw->bohw", weight, both) / (1 + fusion.norm.eps) ** 0.5
    assert torch.allclose(fusion(low, up), expected.clamp(min=0), atol=1e-5)


def test_fused_input_needs_two_stages() -> None:
    with pytest.raises(ValueError, match="two stages"):
        FeatureDiscriminator((8,), source="fused")
