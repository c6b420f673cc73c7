"""The series that DICOM results belong to: its headers, and a map placed on its frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import DSfloat

from multiad_med.dicom.read.frames import functional_group
from multiad_med.dicom.read.header import dicom_errors, sop_class, text
from multiad_med.dicom.read.reader import DicomSeriesReader, DicomStack
from multiad_med.readers.load_volume import LoadVolume
from multiad_med.utils.errors import MultiADError
from multiad_med.utils.suffixes import is_nifti

__all__ = ["DicomResultError", "ResultSource", "SeriesPath", "place_map", "read_source"]

SeriesPath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder that holds one series, or the series' files."""

_TOLERANCE = 0.05  # of a voxel, as for the slices of a series
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_SEXES = ("M", "F", "O")


class DicomResultError(MultiADError, ValueError):
    """DICOM results cannot be made from this series, map and scores; the message says why."""


@dataclass(frozen=True)
class ResultSource:
    """A series whose results are to be written.

    Attributes:
        stack: its slices, ordered and checked.
        headers: of its files without pixels, as highdicom takes them: one for each slice of a classic
            series, in the order of the slices; one for a multi-frame object.
    """

    stack: DicomStack
    headers: tuple[Dataset, ...]

    @property
    def name(self) -> str:
        """What messages call it."""
        path = self.stack.frames[0].path
        return str(path if self.is_multi_frame else path.parent)

    @property
    def is_multi_frame(self) -> bool:
        """Whether it is an object with functional groups."""
        return any("PerFrameFunctionalGroupsSequence" in header for header in self.headers)

    def header(self, place: int) -> Dataset:
        """Return the header of the file that holds a slice, by the slice's place along the normal."""
        return self.headers[0 if self.is_multi_frame else place]

    def as_stored(self, slices: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return slices in the order of :attr:`headers`, or of a multi-frame object's frames."""
        return slices[np.argsort([frame.index for frame in self.stack.frames], kind="stable")]


def read_source(source: SeriesPath) -> ResultSource:
    """Read the headers of a series.

    An absent SOPInstanceUID is taken from the file's own header. Headers are brought in line with
    the checked geometry (one orientation, the true distance of slices), which is what highdicom copies.

    Raises:
        DicomResultError: when it is no DICOM, or lacks what results need: UIDs of study, series and
            instances, a frame of reference, pixels; or when it is of more than one study or frame of
            reference, or more than one multi-frame object.
        DicomSeriesError: when the files do not make up one volume.
    """
    reader = DicomSeriesReader()
    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    for path in map(Path, paths):
        if is_nifti(path):
            raise DicomResultError(
                f"{path}: DICOM results need the DICOM series that they belong to, got a NIfTI file. "
                "Give the series' folder or files, or use the NIfTI map as it is."
            )
    stack = reader.get_stack(reader.read(paths))
    if not stack.frames[0].plane.in_patient:
        raise DicomResultError(
            f"{stack.frames[0].path}: its frames have no position in the patient, so that results "
            "cannot be placed on them."
        )
    files = list(dict.fromkeys(frame.path for frame in stack.frames))
    headers = tuple(_read_header(path) for path in files)
    found = ResultSource(stack, headers)
    _check_one(headers, found.name)
    if found.is_multi_frame:
        if len(files) > 1:
            raise DicomResultError(
                f"{found.name}: one of {len(files)} multi-frame objects that make up one volume. Results "
                "refer to one multi-frame object, or to single slices."
            )
        _align_groups(headers[0], stack)
    else:
        for header in headers:
            _align(header, headers[0], stack)
    return found


def _read_header(path: Path) -> Dataset:
    with dicom_errors(path):
        header = dcmread(path, defer_size=1024)
        has_pixels = "PixelData" in header
        header.pop("PixelData", None)
        if not text(header, "SOPClassUID"):
            header.SOPClassUID = sop_class(header)
        if not text(header, "SOPInstanceUID"):
            header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID
    if not has_pixels:
        raise DicomResultError(
            f"{path}: it holds no pixel data, so that no map can belong to it. Give the series itself."
        )
    missing = [keyword for keyword in _NEEDED if not text(header, keyword)]
    if missing:
        raise DicomResultError(
            f"{path}: {', '.join(missing)} missing, without which a PACS cannot tell what a result "
            "belongs to. Export the series again from its source; no UID is invented."
        )
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    if header.PatientSex not in _SEXES:
        header.PatientSex = None
    return header


def _check_one(headers: Sequence[Dataset], name: str) -> None:
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        found = sorted({text(header, keyword) for header in headers})
        if len(found) > 1:
            raise DicomResultError(
                f"{name}: its files state {len(found)} values of {keyword}, {', '.join(found[:3])}; a "
                "result belongs to one. Export the series again from its source."
            )


def _align(header: Dataset, first: Dataset, stack: DicomStack) -> None:
    header.ImageOrientationPatient = first.ImageOrientationPatient
    header.PixelSpacing = first.PixelSpacing
    _set_steps(header, stack)


def _align_groups(header: Dataset, stack: DicomStack) -> None:
    groups = header.PerFrameFunctionalGroupsSequence
    if not header.get("SharedFunctionalGroupsSequence"):
        header.SharedFunctionalGroupsSequence = Items([Dataset()])
    shared = header.SharedFunctionalGroupsSequence[0]
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        setattr(shared, keyword, Items([functional_group(keyword, groups[0], shared)]))
    for group in groups:
        place = functional_group("PlanePositionSequence", group, shared)
        group.PlanePositionSequence = Items([place])
    _set_steps(shared.PixelMeasuresSequence[0], stack)


def _set_steps(measures: Dataset, stack: DicomStack) -> None:
    step = DSfloat(float(np.linalg.norm(stack.geometry.affine[:3, 2])), auto_format=True)
    if not measures.get("SliceThickness"):
        measures.SliceThickness = step
    measures.SpacingBetweenSlices = step


def place_map(anomaly_map: str | os.PathLike[str], source: ResultSource) -> NDArray[np.float32]:
    """Read a calibrated map and place it on a series.

    The map's grid must be the series' own; its axes may come in another order or direction, as
    other converters write them.

    Args:
        anomaly_map: NIfTI file.
        source: the series.

    Returns:
        ``(slices, rows, columns)``, in the order of the series' slices along their normal.

    Raises:
        DicomResultError: when it lies on another grid, or has values that are not in [0, 1].
        NiftiError: when the file is damaged.
    """
    volume = LoadVolume()(anomaly_map)
    values = volume.numpy().astype(np.float32, copy=False)
    geometry = source.stack.geometry
    to_source = np.linalg.inv(geometry.affine) @ volume.affine.numpy()
    orientation = nib.io_orientation(to_source)
    shape = values.shape[1:]
    placed = nib.apply_orientation(values[0], orientation)
    rest = to_source @ nib.orientations.inv_ornt_aff(orientation, shape) - np.eye(4)
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*geometry.shape, 1]
    off = float(np.abs(corners @ rest[:3].T).max())
    if len(values) > 1 or placed.shape != geometry.shape or off > _TOLERANCE:
        raise DicomResultError(
            f"{anomaly_map}: its grid (shape {values.shape if len(values) > 1 else shape}) is not that "
            f"of {source.name} (shape {geometry.shape}): corners lie up to {off:.3g} voxels apart. Give "
            "the map that was made from this series; nothing is resampled."
        )
    if not np.isfinite(placed).all() or placed.min() < 0 or placed.max() > 1:
        raise DicomResultError(
            f"{anomaly_map}: a calibrated map has finite values in [0, 1], got "
            f"{placed.min():.3g} to {placed.max():.3g}. Give the map that a bundle's inference wrote."
        )
    return np.ascontiguousarray(placed.transpose(2, 1, 0))
