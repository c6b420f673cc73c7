"""Order, affine and every refusal of a stack of slices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from multiad_med.dicom.read.geometry import (
    DicomSeriesError,
    SlicePlane,
    slice_plane,
    stack_geometry,
)

AXIAL = (1, 0, 0, 0, 1, 0)


def plane(name: str = "a", **values: Any) -> SlicePlane:
    raw: dict[str, Any] = {
        "position": (0, 0, 0),
        "orientation": AXIAL,
        "spacing": (0.5, 0.75),
        "rows": 4,
        "columns": 6,
    }
    return slice_plane(name, **{**raw, **values})


def stack(
    heights: Sequence[float], shear: float = 0.0, spacing: tuple[float, float] = (0.5, 0.75)
) -> list[SlicePlane]:
    return [
        plane(f"s{i}", position=(0, shear * z, z), spacing=spacing) for i, z in enumerate(heights)
    ]


def test_order_and_affine_of_axial_slices_given_in_any_order() -> None:
    geometry = stack_geometry([plane(position=(-10, 20, z)) for z in (35, 30, 40)])
    assert geometry.order == (1, 0, 2)
    assert geometry.shape == (6, 4, 3)
    expected = [[-0.75, 0, 0, 10], [0, -0.5, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(geometry.affine, expected)


def test_slices_are_ordered_along_their_normal_so_lps_handedness_is_kept() -> None:
    feet_first = (1, 0, 0, 0, -1, 0)
    geometry = stack_geometry([plane(position=(0, 0, z), orientation=feet_first) for z in (0, 2)])
    assert geometry.order == (1, 0)
    assert np.linalg.det(geometry.affine[:3, :3]) > 0


def test_axes_are_perpendicular_although_cosines_are_rounded() -> None:
    cosines = (0.866, 0.5, 0, -0.5, 0.866, 0)
    affine = stack_geometry([plane(orientation=cosines, steps=(2,))]).affine[:3, :3]
    gram = affine.T @ affine
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)


def test_single_slice_takes_its_step_from_the_first_usable_of_spacing_and_thickness() -> None:
    assert stack_geometry([plane(steps=(3, 5))]).affine[2, 2] == 3
    assert stack_geometry([plane(steps=(None, 5))]).affine[2, 2] == 5
    assert stack_geometry([plane(steps=(0, "5"))]).affine[2, 2] == 5


def test_single_slice_without_any_step_is_refused() -> None:
    with pytest.raises(DicomSeriesError, match="SpacingBetweenSlices or SliceThickness"):
        stack_geometry([plane(steps=(None, None))])


def test_no_slices_are_refused() -> None:
    with pytest.raises(DicomSeriesError, match="no slices"):
        stack_geometry([])


@pytest.mark.parametrize(
    ("tag", "keyword"),
    [
        ("ImagePositionPatient", "position"),
        ("ImageOrientationPatient", "orientation"),
        ("PixelSpacing", "spacing"),
        ("Rows", "rows"),
    ],
)
@pytest.mark.parametrize("value", [None, "", []])
def test_missing_element_is_named(tag: str, keyword: str, value: object) -> None:
    with pytest.raises(DicomSeriesError, match=f"scan7: {tag} is missing"):
        plane("scan7", **{keyword: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"position": (0, 0)}, "must be 3 finite"),
        ({"position": (0, 0, float("nan"))}, "must be 3 finite"),
        ({"position": ("x", 0, 0)}, "must be 3 finite"),
        ({"orientation": (1, 0, 0, 1, 0, 0)}, "perpendicular unit"),
        ({"orientation": (2, 0, 0, 0, 1, 0)}, "perpendicular unit"),
        ({"spacing": (0, 1)}, "must be positive"),
        ({"rows": 0}, "at least 1"),
    ],
)
def test_senseless_element_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DicomSeriesError, match=message):
        plane(**values)


def test_missing_slices_are_counted_and_located() -> None:
    with pytest.raises(DicomSeriesError) as caught:
        stack_geometry(stack([0, 5, 10, 25, 30]))
    message = str(caught.value)
    assert re.search(r"\b2 slice.*missing", message)
    assert re.search(r"\bs2\b.*10\.000 mm.*\bs3\b.*25\.000 mm.*15\.000 mm.*5\.000 mm", message)


def test_several_gaps_are_all_counted() -> None:
    with pytest.raises(DicomSeriesError, match=r"\b3 slice.*missing: 1 between.*; 2 between"):
        stack_geometry(stack([0, 1, 2, 4, 5, 6, 9, 10]))


def test_uneven_spacing_names_both_extremes_and_the_tolerance() -> None:
    with pytest.raises(DicomSeriesError, match=r"uneven.*5\.000 mm.*6\.500 mm"):
        stack_geometry(stack([0, 5, 10, 16.5]))
    with pytest.raises(DicomSeriesError, match="'tolerance'"):
        stack_geometry(stack([0, 5, 10, 16.5]))


def test_spacing_within_the_tolerance_passes_and_outside_does_not() -> None:
    heights = [0, 5.2, 10, 15]
    assert stack_geometry(stack(heights)).affine[2, 2] == 5
    with pytest.raises(DicomSeriesError, match="unevenly"):
        stack_geometry(stack(heights), tolerance=0.03)


def test_spacing_that_drifts_over_many_slices_is_refused() -> None:
    heights = np.cumsum([1.0] * 50 + [1.03] * 50)
    with pytest.raises(DicomSeriesError, match="unevenly"):
        stack_geometry(stack(heights.tolist()))


def test_duplicated_positions_are_named() -> None:
    with pytest.raises(DicomSeriesError, match=r"1 slice position.* s1 and s2 at 5\.000 mm"):
        stack_geometry(stack([0, 5, 5, 10]))


def test_microscopic_spacing_of_ophthalmic_scans_is_not_taken_for_copies() -> None:
    heights = (np.arange(10) * 0.0117).tolist()
    assert stack_geometry(stack(heights, spacing=(0.0039, 0.0117))).shape[2] == 10


@pytest.mark.parametrize("degrees", [1, 5, 20])
def test_gantry_tilt_is_named_with_its_angle(degrees: float) -> None:
    with pytest.raises(DicomSeriesError, match=rf"gantry tilt.* {degrees}\.00°"):
        stack_geometry(stack([0, 5, 10], shear=np.tan(np.radians(degrees))))


def test_rounded_positions_are_no_gantry_tilt() -> None:
    noise = np.random.default_rng(0).uniform(-0.005, 0.005, (50, 2))
    planes = [plane(position=(x, y, round(z * 0.625, 2))) for z, (x, y) in enumerate(noise)]
    assert stack_geometry(planes).shape[2] == 50


@pytest.mark.parametrize(
    ("values", "tag"),
    [
        ({"rows": 5}, "Rows and Columns"),
        ({"spacing": (0.5, 0.8)}, "PixelSpacing"),
        ({"orientation": (0, 1, 0, 0, 0, -1)}, "ImageOrientationPatient"),
        ({"orientation": (-1, 0, 0, 0, -1, 0)}, "ImageOrientationPatient"),
    ],
)
def test_slices_that_differ_are_named(values: dict[str, Any], tag: str) -> None:
    with pytest.raises(DicomSeriesError, match=rf"odd: {tag}\b.*\bs0\b"):
        stack_geometry([*stack([0, 5]), plane("odd", position=(0, 0, 10), **values)])
