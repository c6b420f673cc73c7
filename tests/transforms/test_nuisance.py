"""Changes that are no anomaly: how far they go, and that light is drawn as the seed says."""

from __future__ import annotations

import pytest
import torch

from multiad_med.transforms import EXTREMES, Nuisance, NuisanceChange, RandBrightnessd


def test_extremes_are_what_their_names_say() -> None:
    image = torch.tensor([[[0.25, 0.95]]])
    expected = {
        Nuisance.DARKER: [0.225, 0.855],
        Nuisance.BRIGHTER: [0.275, 1.0],
        Nuisance.GAMMA_UP: [0.25**1.1, 0.95**1.1],
        Nuisance.GAMMA_DOWN: [0.25**0.9, 0.95**0.9],
    }
    for nuisance, values in expected.items():
        changed = EXTREMES[nuisance].image(image)
        torch.testing.assert_close(changed, torch.tensor([[values]]))
    assert set(EXTREMES) == set(Nuisance)


def test_a_shift_moves_down_and_right_and_continues_the_border() -> None:
    image = torch.arange(12.0).view(1, 3, 4) / 12
    moved = NuisanceChange(shift=(1, 2)).image(image)
    expected = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]]) / 12
    torch.testing.assert_close(moved[0], expected)
    assert torch.equal(NuisanceChange(shift=(1, 2), gain=0.5).moved(image), moved)


def test_a_blur_keeps_an_even_image_up_to_its_border() -> None:
    even = torch.full((3, 20, 20), 0.4)
    torch.testing.assert_close(NuisanceChange(sigma=0.8).image(even), even)
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1
    blurred = NuisanceChange(sigma=0.8).image(point)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-3)
    assert float(blurred.max()) < 0.3


def test_light_is_drawn_from_0_9_to_1_1_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    drawn = [NuisanceChange.draw_light() for _ in range(200)]
    for name in ("gain", "gamma"):
        values = [getattr(change, name) for change in drawn]
        assert 0.9 <= min(values) < 0.92
        assert 1.08 < max(values) <= 1.1
    assert {(change.sigma, change.shift) for change in drawn} == {(0.0, (0, 0))}


@pytest.mark.parametrize("given", [{"gain": 0}, {"gamma": -1}, {"sigma": -0.1}])
def test_impossible_changes_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="gain and gamma must be positive"):
        NuisanceChange(**given)


def test_light_in_training_follows_torchs_seed_and_leaves_the_data_alone() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    item = {"image": image, "subject": "a"}
    before = image.clone()
    torch.manual_seed(3)
    first, second = RandBrightnessd("image")(item), RandBrightnessd("image")(item)
    torch.manual_seed(3)
    assert torch.equal(RandBrightnessd("image")(item)["image"], first["image"])
    assert not torch.equal(first["image"], second["image"])
    assert first["subject"] == "a"
    assert torch.equal(image, before)
    assert float((first["image"] - image).abs().max()) < 0.2
