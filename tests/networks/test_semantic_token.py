"""The token that a convolutional teacher is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from multiad_med.networks import FeatureExtractor, WithSemanticToken
from multiad_med.networks.semantic_token import semantic_stages
from multiad_med.testing.networks import TinyFeatures, tiny_dino
from multiad_med.utils.errors import InputError


def _normalised(x: Tensor) -> Tensor:
    mean = x.mean(dim=1, keepdim=True)
    return (x - mean) / (x.var(dim=1, unbiased=False, keepdim=True) + 1e-5).sqrt()


@torch.no_grad()
def test_the_token_is_the_normalised_means_of_the_two_deepest_stages() -> None:
    torch.manual_seed(0)
    plain = TinyFeatures().eval()
    teacher = WithSemanticToken(plain).eval()
    assert isinstance(teacher, FeatureExtractor)
    assert teacher.channels == (4, 6, 8, 10, 18)
    assert teacher.strides == (4, 8, 16, 32, 0)
    x = torch.randn(2, 3, 64, 96)
    stages = plain(x)
    *maps, token = teacher(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, stages, strict=True))
    expected = torch.cat([_normalised(stages[i].mean(dim=(2, 3))) for i in (2, 3)], dim=1)
    torch.testing.assert_close(token, expected[:, :, None, None], atol=1e-5, rtol=1e-5)


class OneStage(nn.Module):
    channels = (4,)
    strides = (8,)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x[:, :1, ::8, ::8].expand(-1, 4, -1, -1) * torch.arange(4.0).view(1, 4, 1, 1)]


def test_a_teacher_of_one_stage_has_a_token_of_it() -> None:
    teacher = WithSemanticToken(OneStage())
    assert teacher.channels == (4, 4)
    assert teacher(torch.rand(2, 3, 16, 16))[1].shape == (2, 4, 1, 1)


def test_a_second_token_and_what_is_no_teacher_are_refused() -> None:
    for teacher in (tiny_dino(), WithSemanticToken(TinyFeatures())):
        with pytest.raises(InputError, match="has a token of the whole image already"):
            WithSemanticToken(teacher)
    with pytest.raises(InputError, match="Conv2d has no `channels` and `strides`"):
        WithSemanticToken(nn.Conv2d(3, 3, 1))


def test_stages_of_the_whole_image_are_those_of_stride_0() -> None:
    assert semantic_stages((4, 8, 16, 32)) == []
    assert semantic_stages((14, 14, 0, 14)) == [3]
