"""The decoder student: the teacher's shapes, and no look at the image."""

from __future__ import annotations

import pytest
import torch

from multiad_med.networks import DecoderStudent, build_extractor


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (96, 64), (75, 101)])
@pytest.mark.parametrize(
    ("architecture", "output_stride"),
    [("efficientnet_lite0", 32), ("resnet18", 32), ("resnet18", 8)],
)
def test_features_have_the_teachers_shapes(
    architecture: str, output_stride: int, size: tuple[int, int]
) -> None:
    teacher = build_extractor(architecture, output_stride=output_stride).eval()
    student = DecoderStudent(teacher.channels, teacher.strides, se=True)
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        features = teacher(image)
    decoded = student(image, features)
    assert [f.shape for f in decoded] == [f.shape for f in features]


def test_image_is_not_looked_at() -> None:
    torch.manual_seed(0)
    student = DecoderStudent((4, 6), (4, 8)).eval()
    features = [torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4)]
    a = student(torch.zeros(1, 3, 32, 32), features)
    b = student(torch.ones(1, 3, 32, 32), features)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_everything_passes_the_bottleneck() -> None:
    """With the bottleneck's output cut off, nothing of the teacher's features gets through."""
    student = DecoderStudent((4, 6, 8), (4, 8, 16)).eval()
    torch.nn.init.zeros_(student.bottleneck.squeeze[-1][1].weight)
    features = [torch.rand(1, c, s, s) for c, s in ((4, 16), (6, 8), (8, 4))]
    others = [torch.rand_like(f) for f in features]
    image = torch.zeros(1, 3, 64, 64)
    for a, b in zip(student(image, features), student(image, others), strict=True):
        assert torch.equal(a, b)


def test_se_starts_as_the_identity() -> None:
    plain = DecoderStudent((4, 8), (4, 8)).eval()
    with_se = DecoderStudent((4, 8), (4, 8), se=True).eval()
    with_se.load_state_dict(plain.state_dict(), strict=False)
    features = [torch.rand(1, 4, 8, 8), torch.rand(1, 8, 4, 4)]
    image = torch.zeros(1, 3, 32, 32)
    for a, b in zip(plain(image, features), with_se(image, features), strict=True):
        assert torch.equal(a, b)
