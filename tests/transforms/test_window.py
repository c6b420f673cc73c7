"""Hounsfield windows against values worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from multiad_med.readers import LoadVolume
from multiad_med.transforms import HounsfieldWindow, HounsfieldWindowd, Window
from tests.dicom_files import ct_slices, save


def grey(*values: float) -> torch.Tensor:
    """A volume of one channel, one row and one slice."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("liver", -45, 105),  # level 30, width 150
        ("abdomen", -160, 240),  # 40, 400
        ("lung", -1350, 150),  # -600, 1500
        ("brain", 0, 80),  # 40, 80
        ("bone", -500, 1300),  # 400, 1800
    ],
)
def test_named_windows_have_the_limits_of_their_level_and_width(
    name: str, low: float, high: float
) -> None:
    assert Window(name).limits == (low, high)
    quarter = low + (high - low) / 4
    result = HounsfieldWindow([name])(grey(low - 999, low, quarter, high, high + 999))
    torch.testing.assert_close(result.flatten(), torch.tensor([0, 0, 0.25, 1, 1]))


def test_every_named_window_is_tested_above() -> None:
    assert {w.value for w in Window} == {"liver", "abdomen", "lung", "brain", "bone"}


@pytest.mark.parametrize(
    "windows", ["abdomen", ["abdomen"], [Window.ABDOMEN], (-160, 240), [[-160.0, 240.0]]]
)
def test_one_window_may_be_given_in_any_form(windows: Any) -> None:
    result = HounsfieldWindow(windows)(grey(-160, 40, 140))
    assert result.shape == (1, 3, 1, 1)
    torch.testing.assert_close(result.flatten(), torch.tensor([0, 0.5, 0.75]))


def test_several_windows_become_channels_in_their_order() -> None:
    result = HounsfieldWindow(["liver", [-200, 250], "bone"])(grey(30, 25))
    expected = [[75 / 150, 70 / 150], [230 / 450, 225 / 450], [530 / 1800, 525 / 1800]]
    torch.testing.assert_close(result[:, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([], "At least one window"),
        (["spleen"], r"Unknown window 'spleen'.*'liver'"),
        ("spleen", "Unknown window 'spleen'"),
        ([[100, 100]], r"ascending.*got \[100, 100\]"),
        ([[250, -200]], "ascending"),
        ((250, -200), "ascending"),
        ([[1, 2, 3]], "two ascending"),
        ([[float("nan"), 3]], "ascending"),
    ],
)
def test_windows_that_are_none_are_refused(windows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HounsfieldWindow(windows)


def test_several_channels_go_through_one_window_and_not_through_several() -> None:
    neighbours = torch.stack([grey(0, 50, 100)[0], grey(50, 100, 150)[0]])
    result = HounsfieldWindow([(0, 200)])(neighbours)
    expected = torch.tensor([[0, 0.25, 0.5], [0.25, 0.5, 0.75]])
    torch.testing.assert_close(result.reshape(2, 3), expected)
    with pytest.raises(ValueError, match="one channel in HU, got 2"):
        HounsfieldWindow(["liver", "bone"])(neighbours)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32, torch.float64])
def test_result_is_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    result = HounsfieldWindow([(0, 200)])(grey(0, 50, 100).to(dtype))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.flatten(), torch.tensor([0, 0.25, 0.5]))


def test_input_is_left_as_it_was() -> None:
    volume = grey(-500, 30, 500)
    HounsfieldWindow(["liver", "bone"])(volume)
    assert volume.flatten().tolist() == [-500, 30, 500]


def test_affine_and_file_name_stay() -> None:
    affine = torch.diag(torch.tensor([0.7, 0.7, 5, 1], dtype=torch.float64))
    volume = MetaTensor(grey(30), affine=affine, meta={"filename_or_obj": "ct.nii"})
    result = HounsfieldWindow(["liver", "bone"])(volume)
    assert isinstance(result, MetaTensor)
    torch.testing.assert_close(result.affine, affine)
    assert result.meta["filename_or_obj"] == "ct.nii"


@given(
    low=st.floats(-2000, 2000),
    width=st.floats(0.5, 3000),
    values=st.lists(st.floats(-4000, 4000, width=32), min_size=2, max_size=9),
)
def test_window_is_monotone_and_within_0_and_1(
    low: float, width: float, values: list[float]
) -> None:
    result = HounsfieldWindow([(low, low + width)])(grey(*sorted(values))).flatten()
    assert bool((result.diff() >= 0).all())
    expected = np.clip((np.sort(np.array(values)) - low) / width, 0, 1)
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_dictionary_form_windows_each_key_and_nothing_else() -> None:
    data = {"image": grey(30), "prior": grey(105), "label": grey(1)}
    result = HounsfieldWindowd(["image", "prior"], windows=["liver"])(data)
    assert [float(result[key]) for key in ("image", "prior", "label")] == [0.5, 1, 1]
    assert float(data["image"]) == 30


def test_ct_from_dicom_is_in_hu_before_it_is_windowed(tmp_path: Path) -> None:
    # HU = 2 * stored - 1000: 500 -> 0, 520 -> 40, 560 -> 120, 620 -> 240, 0 -> -1000.
    stored = np.array([[500, 520, 560], [620, 0, 4000]], np.uint16)
    folder = save(ct_slices(np.stack([stored, stored]), slopes=2.0, intercept=-1000.0), tmp_path)
    volume = LoadVolume()(folder)
    hounsfield = [[0, 40, 120], [240, -1000, 7000]]
    assert torch.as_tensor(volume)[0, :, :, 0].T.tolist() == hounsfield
    shown = torch.as_tensor(HounsfieldWindow("abdomen")(volume))[0, :, :, 1].T
    torch.testing.assert_close(
        shown.as_subclass(torch.Tensor), torch.tensor([[0.4, 0.5, 0.7], [1, 0, 1]])
    )
