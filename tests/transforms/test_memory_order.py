"""Results never depend on how a volume lies in memory."""

from __future__ import annotations

import itertools

import pytest
import torch

from multiad_med.transforms import (
    ForegroundByIntensity,
    ForegroundByLabel,
    HounsfieldWindow,
    ScaleForegroundIntensity,
    SliceLabels,
)
from multiad_med.transforms.memory_order import as_stored, empty_stored

SHAPE = (1, 6, 7, 5)
LAYOUTS = [*itertools.permutations(range(4)), "view"]


def laid_out(volume: torch.Tensor, layout: tuple[int, ...] | str) -> torch.Tensor:
    """The same values, in another order in memory, or as part of a larger volume."""
    if layout == "view":
        larger = torch.zeros([n + 2 for n in volume.shape], dtype=volume.dtype)
        larger[1:-1, 1:-1, 1:-1, 1:-1] = volume
        return larger[1:-1, 1:-1, 1:-1, 1:-1]
    back = [layout.index(axis) for axis in range(4)]
    return volume.permute(layout).contiguous().permute(back)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transforms_give_the_same_in_every_layout(layout: tuple[int, ...] | str) -> None:
    torch.manual_seed(0)
    hounsfield = torch.randint(-300, 300, SHAPE, dtype=torch.int16)
    labels = torch.randint(0, 4, SHAPE, dtype=torch.uint8)
    there, marks = laid_out(hounsfield, layout), laid_out(labels, layout)
    for transform in (
        HounsfieldWindow([[-200, 250]]),
        HounsfieldWindow(["liver", "lung", "bone"]),
        ForegroundByIntensity(),
    ):
        torch.testing.assert_close(transform(there), transform(hounsfield))
    organ = ForegroundByLabel(labels=[1, 3])
    assert torch.equal(organ(marks), organ(labels))
    scale = ScaleForegroundIntensity()
    torch.testing.assert_close(scale(there, marks), scale(hounsfield, labels))
    state = SliceLabels(labels=[2], min_area=8, known_labels=[1, 2, 3])
    assert torch.equal(state(marks), state(labels))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stored_order_is_a_view_of_the_same_values(layout: tuple[int, ...] | str) -> None:
    volume = laid_out(torch.arange(210).reshape(SHAPE), layout)
    assert sorted(as_stored(volume).flatten().tolist()) == list(range(210))
    empty = empty_stored(volume, torch.float32, channels=3)
    assert empty.shape == (3, *SHAPE)
    assert empty_stored(volume, torch.bool).shape == SHAPE
