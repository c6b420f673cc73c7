"""HU shifted by the organ's median, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from multiad_med.transforms import CentreHounsfield, CentreHounsfieldd
from multiad_med.utils.errors import InputError


def volume(*values: int) -> torch.Tensor:
    """One channel, one row and one slice."""
    return torch.tensor(values, dtype=torch.int16).reshape(1, -1, 1, 1)


def test_the_organs_median_becomes_the_centre() -> None:
    # The organ has 60, 100 and 140 HU: its median of 100 becomes 110.
    result = CentreHounsfield(110)(volume(60, 100, 140, -1000), volume(1, 1, 1, 0))
    assert result.flatten().tolist() == [70, 110, 150, -990]


def test_the_same_organ_is_the_same_however_bright_it_is() -> None:
    image = torch.randint(0, 150, (1, 6, 5, 4), generator=torch.Generator().manual_seed(0))
    mask = (image > 20) & (image < 100)
    centre = CentreHounsfield(100)
    assert torch.equal(centre(image.short(), mask), centre(image.short() + 40, mask))


def test_a_lesion_hardly_moves_it() -> None:
    mask = volume(*[1] * 9)
    healthy, ill = (
        volume(98, 99, 100, 100, 100, 100, 101, 102, 103),
        volume(0, 0, *[100] * 5, 101, 102),
    )
    found = [CentreHounsfield(50)(image, mask).flatten()[4] for image in (healthy, ill)]
    assert found == [50, 50]


def test_no_centre_leaves_a_volume_as_it_is() -> None:
    image = volume(1, 2)
    assert CentreHounsfield(None)(image, volume(0, 0)) is image


def test_geometry_and_other_entries_stay() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    item = {"image": MetaTensor(volume(50, 150), affine=affine), "foreground": volume(1, 0)}
    result = CentreHounsfieldd("image", centre=100)(item)
    assert result["image"].flatten().tolist() == [100, 200]
    assert torch.equal(result["image"].affine, item["image"].affine)
    assert result["foreground"] is item["foreground"]


def test_an_empty_organ_is_refused() -> None:
    with pytest.raises(InputError, match="the foreground is empty"):
        CentreHounsfield(100)(volume(1, 2), volume(0, 0))


@pytest.mark.parametrize("centre", ["100", True, [100]])
def test_a_centre_that_is_no_number_is_refused(centre: Any) -> None:
    with pytest.raises(InputError, match="centre is a value in HU"):
        CentreHounsfield(centre)
