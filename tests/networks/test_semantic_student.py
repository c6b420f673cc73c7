"""The student of a token: what it reads, and how."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks import SemanticStudent
from multiad_med.utils.errors import InputError


def _student(**given: int) -> SemanticStudent:
    torch.manual_seed(0)
    small = {"image_size": 32, "dim": 24, "heads": 2, "depth": 4, **given}
    return SemanticStudent(10, **small).eval()


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (50, 131), (17, 33), (8, 8)])
def test_any_image_has_one_token(size: tuple[int, int]) -> None:
    found = _student()(torch.randn(2, 3, *size), [])
    assert [tuple(f.shape) for f in found] == [(2, 10, 1, 1)]
    assert found[0].isfinite().all()


@torch.no_grad()
def test_the_token_by_hand() -> None:
    """Class tokens after blocks 2, 3 and 4 of 4, the last after the norm, through one layer."""
    student = _student()
    for gamma in (p for n, p in student.named_parameters() if n.endswith(".gamma")):
        torch.nn.init.constant_(gamma, 1.0)
    image = torch.randn(2, 3, 32, 32)
    after = student.encoder.forward_tokens(image, [1, 2, 3, 4])
    parts = [F.layer_norm(after[1][:, 0], [24]), F.layer_norm(after[2][:, 0], [24])]
    parts.append(student.encoder.norm(after[3])[:, 0])
    expected = student.head(torch.cat(parts, dim=1))
    torch.testing.assert_close(student(image, [])[0][..., 0, 0], expected)


@pytest.mark.parametrize(("depth", "blocks"), [(2, [1, 2]), (3, [2, 3]), (6, [3, 5, 6])])
def test_blocks_that_are_read(depth: int, blocks: list[int]) -> None:
    student = _student(depth=depth)
    assert student.blocks == blocks
    assert student.head.in_features == 24 * len(blocks)


def test_it_looks_at_every_pixel_of_a_large_image_and_not_at_features() -> None:
    student = _student()
    image = torch.randn(1, 3, 128, 96, requires_grad=True)
    features = [torch.randn(1, 5, 4, 4, requires_grad=True)]
    student(image, features)[0].sum().backward()
    assert image.grad is not None
    assert float((image.grad.abs().sum(dim=1) > 0).float().mean()) == 1.0
    assert features[0].grad is None


@torch.no_grad()
def test_resizing_keeps_the_mean_and_the_place() -> None:
    student = _student()
    image = torch.zeros(1, 3, 128, 64)
    image[:, :, :64] = 1.0
    small: Tensor = student._resized(image)
    assert small.shape == (1, 3, 32, 32)
    torch.testing.assert_close(small[:, :, :15], torch.ones(1, 3, 15, 32))
    torch.testing.assert_close(small[:, :, 17:], torch.zeros(1, 3, 15, 32))
    assert float(small.mean()) == pytest.approx(0.5, abs=1e-6)


def test_it_starts_with_small_layer_scales() -> None:
    gammas = [p for name, p in _student().named_parameters() if name.endswith(".gamma")]
    assert len(gammas) == 8
    assert all(bool((g == 1e-5).all()) for g in gammas)


@pytest.mark.parametrize(
    "given", [{"image_size": 4}, {"image_size": 30}, {"depth": 1}, {"heads": 5}]
)
def test_sizes_that_do_not_fit_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(InputError):
        _student(**given)
