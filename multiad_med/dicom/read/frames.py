"""The slices that a DICOM file holds: one in a classic object, several in a multi-frame object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from multiad_med.dicom.read.geometry import DicomSeriesError, SlicePlane, slice_plane
from multiad_med.dicom.read.header import sop_class, text

__all__ = ["Frame", "frames_of", "functional_group"]

_OPHTHALMIC_TOMOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
# Row and column directions in LPS that make a positive diagonal affine in RAS.
_OWN_FRAME = (-1, 0, 0, 0, -1, 0)


@dataclass(frozen=True)
class Frame:
    """One slice of a file.

    Attributes:
        path: its file.
        index: its number in the file, from 0.
        plane: where it lies.
        slope: factor from stored to real values.
        intercept: offset from stored to real values.
        unit: of the real values by RescaleType, in upper case; without it HU for a CT whose slope and
            intercept are stated, as DICOM has it; otherwise empty.
        padding: lowest and highest stored value that mean a pixel outside the image, if any do.
    """

    path: Path
    index: int
    plane: SlicePlane
    slope: float
    intercept: float
    unit: str = ""
    padding: tuple[int, int] | None = None


def frames_of(header: Dataset, path: Path) -> list[Frame]:
    """Return the slices of a file, in the file's order.

    An ophthalmic tomography whose frames have no plane position (its scans are then placed only on a
    fundus image) is given its own frame instead of the patient's: columns, rows and frames along x, y
    and z, from PixelSpacing and SpacingBetweenSlices (else SliceThickness), with the first pixel at
    the origin; its planes have ``in_patient=False``. Any other object without positions is refused.

    Raises:
        DicomSeriesError: when geometry or rescaling is missing or makes no sense.
    """
    if "PerFrameFunctionalGroupsSequence" in header:
        return _functional_group_frames(header, path)
    if _count(header) > 1:
        raise DicomSeriesError(
            f"{path}: {_count(header)} frames without functional groups, so no frame has a position. "
            "Export the study as an enhanced multi-frame object or as single slices."
        )
    plane = slice_plane(
        str(path),
        position=header.get("ImagePositionPatient"),
        orientation=header.get("ImageOrientationPatient"),
        spacing=header.get("PixelSpacing"),
        rows=header.get("Rows"),
        columns=header.get("Columns"),
        steps=(header.get("SpacingBetweenSlices"), header.get("SliceThickness")),
    )
    slope, intercept = _rescale(header, path)
    return [Frame(path, 0, plane, slope, intercept, _unit(header, header), _padding(header))]


def _count(header: Dataset) -> int:
    return int(header.get("NumberOfFrames") or 1)


def _functional_group_frames(header: Dataset, path: Path) -> list[Frame]:
    groups = header.PerFrameFunctionalGroupsSequence
    if len(groups) != _count(header):
        raise DicomSeriesError(
            f"{path}: NumberOfFrames is {_count(header)}, but {len(groups)} frames are described. The "
            "file is damaged; export it again."
        )
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or []), Dataset())
    placed = any(functional_group("PlanePositionSequence", group, shared) for group in groups)
    ophthalmic = sop_class(header) == _OPHTHALMIC_TOMOGRAPHY
    padding = _padding(header)
    frames = []
    for index, group in enumerate(groups):
        name = f"{path} frame {index + 1}"
        measures = functional_group("PixelMeasuresSequence", group, shared)
        steps = (measures.get("SpacingBetweenSlices"), measures.get("SliceThickness"))
        position = functional_group("PlanePositionSequence", group, shared).get(
            "ImagePositionPatient"
        )
        orientation = functional_group("PlaneOrientationSequence", group, shared).get(
            "ImageOrientationPatient"
        )
        own = ophthalmic and not placed
        if own:
            position, orientation = (0, 0, index * _step(steps, name)), _OWN_FRAME
        plane = slice_plane(
            name,
            position=position,
            orientation=orientation,
            spacing=measures.get("PixelSpacing"),
            rows=header.get("Rows"),
            columns=header.get("Columns"),
            steps=steps,
            in_patient=not own,
        )
        values = functional_group("PixelValueTransformationSequence", group, shared) or header
        slope, intercept = _rescale(values, path)
        unit = _unit(values, header)
        frames.append(Frame(path, index, plane, slope, intercept, unit, padding))
    return frames


def functional_group(keyword: str, group: Dataset, shared: Dataset) -> Dataset:
    """Return the item of a frame's own functional group, else of the shared one; empty if in neither."""
    for holder in (group, shared):
        if items := holder.get(keyword):
            return items[0]
    return Dataset()


def _step(steps: tuple[Any, ...], name: str) -> float:
    for step in steps:
        if step is not None and np.isfinite(float(step)) and float(step) > 0:
            return float(step)
    raise DicomSeriesError(
        f"{name}: no plane position, and neither SpacingBetweenSlices nor SliceThickness, so the "
        "frames' distance is unknown. No geometry is invented."
    )


def _unit(values: Dataset, header: Dataset) -> str:
    if values.get("RescaleSlope") is None or values.get("RescaleIntercept") is None:
        return ""
    unit = text(values, "RescaleType").upper()
    return unit or ("HU" if text(header, "Modality") == "CT" else "")


def _padding(header: Dataset) -> tuple[int, int] | None:
    """Return PixelPaddingValue to PixelPaddingRangeLimit, in the pixels' own sign."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    bits, signed = int(header.BitsAllocated), header.get("PixelRepresentation") == 1
    ends = []
    for stated in (value, header.get("PixelPaddingRangeLimit", value)):
        # Some writers state -2000 as 63536, or the other way round.
        end = int(stated) % 2**bits
        ends.append(end - 2**bits if signed and end >= 2 ** (bits - 1) else end)
    return min(ends), max(ends)


def _rescale(values: Dataset, path: Path) -> tuple[float, float]:
    numbers = []
    for keyword, default in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        value = values.get(keyword)
        numbers.append(float(default if value is None else value))
    slope, intercept = numbers
    if not np.isfinite(numbers).all() or slope == 0:
        raise DicomSeriesError(
            f"{path}: RescaleSlope must be finite and not 0, RescaleIntercept finite; got {slope} and "
            f"{intercept}."
        )
    return slope, intercept
