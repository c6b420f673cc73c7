"""Order and affine of one series' slices, from what their headers state; nothing is invented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiad_med.utils.errors import MultiADError

__all__ = ["DicomSeriesError", "SlicePlane", "StackGeometry", "slice_plane", "stack_geometry"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHOWN = 3


class DicomSeriesError(MultiADError, ValueError):
    """DICOM files do not make up one volume; the message names the files and the reason."""


@dataclass(frozen=True)
class SlicePlane:
    """Where one slice lies, in DICOM's patient frame (LPS, mm).

    Attributes:
        name: what messages call the slice.
        position: (3,) centre of the first pixel.
        row: (3,) unit vector along a row, towards higher columns.
        column: (3,) unit vector along a column, towards higher rows.
        spacing: distance of rows, distance of columns (DICOM's order).
        rows: number of rows.
        columns: number of columns.
        step: distance to the next slice as the header states it, if it does.
        in_patient: false where the file states no position, and the slices' own frame is used.
    """

    name: str
    position: np.ndarray
    row: np.ndarray
    column: np.ndarray
    spacing: tuple[float, float]
    rows: int
    columns: int
    step: float | None = None
    in_patient: bool = True


@dataclass(frozen=True)
class StackGeometry:
    """A volume's geometry.

    Attributes:
        order: indices of the given planes, along the slices' normal (row x column).
        affine: (4, 4) from indices (column, row, slice) to RAS+ mm.
        shape: columns, rows, slices.
    """

    order: tuple[int, ...]
    affine: np.ndarray
    shape: tuple[int, int, int]


def slice_plane(
    name: str,
    *,
    position: Any,
    orientation: Any,
    spacing: Any,
    rows: Any,
    columns: Any,
    steps: Sequence[Any] = (),
    in_patient: bool = True,
) -> SlicePlane:
    """Check one slice's raw header values.

    Args:
        name: what messages call the slice.
        position: ImagePositionPatient, three numbers.
        orientation: ImageOrientationPatient, six numbers.
        spacing: PixelSpacing, two numbers.
        rows: Rows.
        columns: Columns.
        steps: SpacingBetweenSlices and SliceThickness; the first usable one is the slice's step.
        in_patient: see :class:`SlicePlane`.

    Raises:
        DicomSeriesError: when a value is missing or makes no sense.
    """
    where = _numbers(name, "ImagePositionPatient", position, 3)
    cosines = _numbers(name, "ImageOrientationPatient", orientation, 6)
    distances = _numbers(name, "PixelSpacing", spacing, 2)
    if distances.min() <= 0:
        raise DicomSeriesError(f"{name}: PixelSpacing must be positive, got {distances.tolist()}.")
    row, column = cosines[:3], cosines[3:]
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > 5e-3 or abs(row @ column) > 5e-3:
        raise DicomSeriesError(
            f"{name}: ImageOrientationPatient must be two perpendicular unit vectors, got "
            f"{cosines.tolist()}."
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    size = [_numbers(name, tag, n, 1)[0] for tag, n in (("Rows", rows), ("Columns", columns))]
    if min(size) < 1:
        raise DicomSeriesError(f"{name}: Rows and Columns must be at least 1, got {size}.")
    return SlicePlane(
        name=name,
        position=where,
        row=row,
        column=column / np.linalg.norm(column),
        spacing=(float(distances[0]), float(distances[1])),
        rows=int(size[0]),
        columns=int(size[1]),
        step=next((step for step in map(_positive, steps) if step is not None), None),
        in_patient=in_patient,
    )


def stack_geometry(planes: Sequence[SlicePlane], *, tolerance: float = 0.05) -> StackGeometry:
    """Order slices and compute their affine, if they are parallel, straight and evenly spaced.

    Slices are ordered along their normal, so the affine's handedness in LPS is right. The slice
    step is the mean distance; the affine's axes are exactly perpendicular. A single slice takes its
    step from SpacingBetweenSlices or SliceThickness. Missing slices at either end cannot be
    noticed.

    Args:
        planes: the slices of one series, in any order.
        tolerance: how far a slice may lie off its place on the even grid, as a fraction of the slice
            step along the normal, and of a pixel across it (there, 0.5 mm per metre of the stack's
            length come on top, for direction cosines with few digits).

    Raises:
        DicomSeriesError: mixed sizes, pixel spacings or orientations, duplicated positions, gantry
            tilt, missing slices, uneven spacing, or a single slice without a thickness.
    """
    if not planes:
        raise DicomSeriesError("The series has no slices.")
    _check_alike(planes)
    first = planes[0]
    normal = np.cross(first.row, first.column)
    positions = np.array([plane.position for plane in planes])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    along, positions = along[order], positions[order]
    stack = [planes[index] for index in order]
    if len(stack) == 1:
        if first.step is None:
            raise DicomSeriesError(
                f"{first.name}: a single slice needs SpacingBetweenSlices or SliceThickness, and the "
                "header has neither. Add one, or give the whole series."
            )
        step = first.step
    else:
        _check_distinct(stack, along)
        _check_straight(stack, positions, normal, tolerance=tolerance)
        _check_even(stack, along, tolerance=tolerance)
        step = float(along[-1] - along[0]) / (len(stack) - 1)
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing[1]
    affine[:3, 1] = first.column * first.spacing[0]
    affine[:3, 2] = normal * step
    affine[:3, 3] = positions[0]
    return StackGeometry(
        order=tuple(order.tolist()),
        affine=_LPS_TO_RAS @ affine,
        shape=(first.columns, first.rows, len(stack)),
    )


def _numbers(name: str, tag: str, value: Any, count: int) -> np.ndarray:
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        raise DicomSeriesError(
            f"{name}: {tag} is missing, so the slice's place in space is unknown. Export the series "
            "again from its source; no geometry is invented."
        )
    try:
        numbers = np.asarray(value, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DicomSeriesError(f"{name}: {tag} must be {count} finite number(s), got {value!r}.")
    return numbers


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def _check_alike(planes: Sequence[SlicePlane]) -> None:
    first = planes[0]
    aspects: list[tuple[str, Callable[[SlicePlane], Any], float]] = [
        ("Rows and Columns", lambda plane: (plane.rows, plane.columns), 0),
        ("PixelSpacing", lambda plane: plane.spacing, 1e-4 * min(first.spacing)),
        ("ImageOrientationPatient", lambda plane: (*plane.row, *plane.column), 1e-3),
    ]
    for tag, aspect, allowed in aspects:
        expected = np.asarray(aspect(first))
        for plane in planes[1:]:
            got = np.asarray(aspect(plane))
            if np.abs(got - expected).max() > allowed:
                raise DicomSeriesError(
                    f"{plane.name}: {tag} {_plain(got)} differs from {_plain(expected)} of "
                    f"{first.name}; the slices do not make up one volume. Separate them, and give the "
                    "files of one volume."
                )


def _check_distinct(stack: Sequence[SlicePlane], along: np.ndarray) -> None:
    same = np.flatnonzero(np.diff(along) < 0.01 * min(stack[0].spacing))
    if len(same):
        pairs = "; ".join(
            f"{stack[i].name} and {stack[i + 1].name} at {along[i]:.3f} mm" for i in same[:_SHOWN]
        )
        raise DicomSeriesError(
            f"{len(same)} slice position(s) are duplicated: {pairs}. The files hold copies, or several "
            "time points, echoes or stacks; give the files of one volume."
        )


def _check_straight(
    stack: Sequence[SlicePlane], positions: np.ndarray, normal: np.ndarray, *, tolerance: float
) -> None:
    offsets = positions - positions[0]
    along = offsets @ normal
    drift = np.linalg.norm(offsets - along[:, None] * normal, axis=1)
    allowed = tolerance * min(stack[0].spacing) + 5e-4 * along[-1]
    worst = int(drift.argmax())
    if drift[worst] > allowed:
        angle = np.degrees(np.arctan2(drift[worst], along[worst]))
        raise DicomSeriesError(
            f"The slices are not stacked along their normal (gantry tilt): from {stack[0].name} to "
            f"{stack[worst].name} the stack leans by {angle:.2f}°, {drift[worst]:.3f} mm over "
            f"{along[worst]:.1f} mm, where {allowed:.3f} mm are allowed. Resample the series to a "
            "straight stack with a tool that corrects gantry tilt."
        )


def _check_even(stack: Sequence[SlicePlane], along: np.ndarray, *, tolerance: float) -> None:
    gaps = np.diff(along)
    step = gaps.mean()
    off = np.abs(along - along[0] - step * np.arange(len(along))).max()
    if off <= tolerance * step:
        return
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    multiples = np.rint(gaps / usual)
    holes = np.flatnonzero((multiples >= 2) & (np.abs(gaps / usual - multiples) <= 0.1))
    if len(holes):
        listed = "; ".join(
            f"{int(multiples[i]) - 1} between {stack[i].name} at {along[i]:.3f} mm and "
            f"{stack[i + 1].name} at {along[i + 1]:.3f} mm (gap {gaps[i]:.3f} mm, usual {usual:.3f} mm)"
            for i in holes[:_SHOWN]
        )
        raise DicomSeriesError(
            f"{int((multiples[holes] - 1).sum())} slice(s) are missing: {listed}. Export the whole "
            "series; no slice is interpolated."
        )
    low, high = int(gaps.argmin()), int(gaps.argmax())
    raise DicomSeriesError(
        f"The slices are unevenly spaced: from {gaps[low]:.3f} mm (between {stack[low].name} and "
        f"{stack[low + 1].name}) to {gaps[high]:.3f} mm (between {stack[high].name} and "
        f"{stack[high + 1].name}). A slice lies {off:.3f} mm off the even grid, where "
        f"{tolerance * step:.3f} mm are allowed. Resample the series, or allow more with the reader's "
        "option 'tolerance' (a fraction of the slice step)."
    )


def _plain(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
