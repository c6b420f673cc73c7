"""One threshold for categories whose normal maps are of different levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks import TokenLevels, build_multiad
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import calibrate
from multiad_med.utils.errors import InputError

CENTRES = torch.eye(4)[:2]
"""Two categories, at right angles."""


def _near(category: int, count: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(CENTRES[category] + 0.1 * torch.rand(count, 4, generator=random), dim=1)


def _features(tokens: Tensor) -> list[Tensor]:
    return [torch.zeros(len(tokens), 3, 2, 2), tokens[..., None, None]]


@pytest.fixture
def levels() -> TokenLevels:
    fitted = TokenLevels(2, 4)
    fitted.fit(torch.cat([_near(0, 5, 1), _near(1, 5, 2)]), torch.tensor([1.0] * 5 + [4.0] * 5))
    return fitted


def test_each_category_is_brought_to_the_typical_level(levels: TokenLevels) -> None:
    # Torch's median of five 1 and five 4 is the lower one.
    torch.testing.assert_close(levels(_features(_near(0, 3, 3))).flatten(), torch.ones(3))
    torch.testing.assert_close(levels(_features(_near(1, 3, 4))).flatten(), torch.full((3,), 0.25))


def test_an_image_is_not_its_own_measure(levels: TokenLevels) -> None:
    tokens = torch.cat([_near(0, 4, 1), _near(0, 1, 9)])
    levels.fit(tokens, torch.tensor([1.0, 1.0, 1.0, 1.0, 100.0]))
    torch.testing.assert_close(levels(_features(tokens[4:])).flatten(), torch.ones(1))


def test_the_level_is_the_mean_of_the_three_nearest(levels: TokenLevels) -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 1.0, 1.2])
    tokens = torch.stack([angles.cos(), angles.sin(), 0 * angles, 0 * angles], dim=1)
    levels.fit(tokens, torch.tensor([1.0, 2.0, 6.0, 50.0, 60.0]))
    at = torch.tensor([[0.05]])
    token = torch.cat([at.cos(), at.sin(), 0 * at, 0 * at], dim=1)
    # Typical is 6, the mean of 1, 2 and 6 is 3.
    torch.testing.assert_close(levels(_features(token)).flatten(), torch.tensor([2.0]))


def test_a_level_near_zero_multiplies_by_ten_at_most(levels: TokenLevels) -> None:
    levels.fit(torch.cat([_near(0, 5, 1), _near(1, 5, 2)]), torch.tensor([0.0] * 5 + [4.0] * 5))
    torch.testing.assert_close(levels(_features(_near(0, 2, 3))).flatten(), torch.full((2,), 10.0))


def test_before_it_is_fitted_nothing_changes() -> None:
    assert TokenLevels(2, 4)(_features(_near(0, 2, 0))).flatten().tolist() == [1, 1]


def test_of_many_images_as_many_as_fit_are_kept_from_all_parts(levels: TokenLevels) -> None:
    tokens = torch.cat([_near(0, 600, 1), _near(1, 600, 2)])
    levels.fit(tokens, torch.tensor([1.0] * 600 + [4.0] * 600))
    assert int((levels.levels == 4).sum()) == 256


@pytest.mark.parametrize("found", [[1.0] * 3, [0.0] * 5], ids=["three images", "no level"])
def test_too_little_is_refused(levels: TokenLevels, found: list[float]) -> None:
    with pytest.raises(InputError, match="at least 4 held-out"):
        levels.fit(_near(0, len(found), 1), torch.tensor(found))


def test_a_teacher_without_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="align_categories needs a teacher with a token"):
        tiny_multiad(align_categories=True)


def _category(name: str, count: int, seed: int) -> Tensor:
    """Red images that hardly vary, or green ones that vary much."""
    random = torch.Generator().manual_seed(seed)
    image = torch.full((count, 3, 32, 32), 0.2)
    channel, amount = (0, 0.05) if name == "calm" else (1, 0.6)
    image[:, channel] += amount * torch.rand(count, 32, 32, generator=random) + 0.1
    return image


@pytest.mark.parametrize("aligned", [False, True])
def test_one_threshold_flags_calm_and_lively_categories_alike(aligned: bool) -> None:
    torch.manual_seed(0)
    network = build_multiad(
        "efficientnet_lite0_decoder",
        teacher="multiad_med.testing.networks.TinyFeatures",
        teacher_weights="random",
        fusion="hazard",
        sigma=1.0,
        align_categories=aligned,
    )
    held_out = [
        {"image": _category(name, 40, seed)} for seed, name in enumerate(("calm", "lively"))
    ]
    calibrate(network, held_out, pixel_false_positive_rate=0.05)
    flagged = [
        float((network(_category(name, 40, seed)) >= 0.5).float().mean())
        for seed, name in ((5, "calm"), (6, "lively"))
    ]
    difference = abs(flagged[0] - flagged[1])
    assert difference < 0.01 if aligned else difference > 0.02
