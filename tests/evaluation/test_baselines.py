"""Baselines: each sees what it is named after, in either direction."""

from __future__ import annotations

import pytest
import torch

from multiad_med.evaluation import Case
from multiad_med.evaluation.baselines import Baselines
from multiad_med.testing.slice_caches import SIZE, volume_case


def _metrics(cases: list[Case]) -> dict[str, dict[str, float]]:
    baselines = Baselines()
    for case in cases:
        baselines.update(case)
    return baselines.metrics()


@pytest.mark.parametrize("brightness", [0.0, 1.0])
def test_dark_and_bright_lesions_are_both_seen(brightness: float) -> None:
    case = volume_case("a", lesion=True)
    case.image = torch.full_like(case.image, 0.5)
    case.image[case.label] = brightness
    found = _metrics([case])["intensity"]
    assert found["image_auroc"] == 1
    assert found["foreground_pixel_auroc"] > 0.95


def test_texture_is_seen_by_the_local_deviation() -> None:
    case = volume_case("a", lesion=True)
    case.image = torch.full_like(case.image, 0.5)
    board = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2
    case.image[case.label] = board.float().expand(6, SIZE, SIZE)[case.label]
    found = _metrics([case])
    assert found["local standard deviation"]["image_auroc"] == 1
    assert found["local standard deviation"]["foreground_pixel_auroc"] > 0.95


def test_area_of_the_foreground_is_a_strong_baseline_where_lesions_come_with_large_slices() -> None:
    case = volume_case("a", lesion=True)
    case.foreground[~case.abnormal, :, SIZE // 2 :] = False
    assert _metrics([case])["foreground area"] == {"image_auroc": 1.0, "image_ap": 1.0}


def test_height_is_a_strong_baseline_where_lesions_are_below() -> None:
    case = volume_case("a", lesion=True)
    case.abnormal = torch.tensor([True, True, False, False, False, False])
    assert _metrics([case])["slice position"]["image_auroc"] == 1
