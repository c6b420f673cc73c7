"""MONAI image reader for one DICOM series or multi-frame object, checked before it is a volume."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys
from pydicom import Dataset
from pydicom.misc import is_dicom

from multiad_med.dicom.read.frames import Frame, frames_of
from multiad_med.dicom.read.geometry import DicomSeriesError, StackGeometry, stack_geometry
from multiad_med.dicom.read.header import (
    dicom_errors,
    image_files,
    is_dead_link,
    is_localiser,
    read_header,
    text,
    why_no_slice,
)
from multiad_med.dicom.read.pixels import check_pixels, read_slices
from multiad_med.utils.errors import InputError
from multiad_med.utils.suffixes import DICOM_SUFFIXES, is_nifti

__all__ = ["DicomSeriesReader", "DicomSource", "DicomStack"]

_logger = logging.getLogger(__name__)

_SHOWN = 10


@dataclass(frozen=True)
class DicomSource:
    """What :meth:`DicomSeriesReader.get_data` is to read: a folder, or files."""

    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What messages call it: the only path, or the folder that the files share."""
        if len(self.paths) == 1:
            return str(self.paths[0])
        return os.path.commonpath([path.absolute() for path in self.paths])


@dataclass(frozen=True)
class DicomStack:
    """The checked slices of one series.

    Attributes:
        frames: in the order of the volume's slices.
        geometry: of the volume.
        header: of the first file.
    """

    frames: tuple[Frame, ...]
    geometry: StackGeometry
    header: Dataset


class DicomSeriesReader(ImageReader):
    """Read one DICOM series as a volume, or refuse it with a named error.

    For ``LoadImaged(keys, reader=DicomSeriesReader(), ensure_channel_first=True)``. An image is a
    folder (its files, not those of folders in it), a list of files, or one file, classic or multi-frame
    (enhanced CT, MR and PET, ophthalmic tomography). A folder's files that are no slices, such as
    reports, are passed over; damaged or empty ones, and any localiser or second series, are not.

    NIfTI files are left to MONAI's other readers, so one ``LoadImaged`` serves a mixed datalist.

    Values: each slice's own slope and intercept are applied (a CT is in HU); int16 where all values are
    whole and fit, else float32. Padding pixels (PixelPaddingValue) get the lowest value of all others.
    RealWorldValueMapping is not applied. A CT is refused where a slice does not declare HU: without
    slope and intercept, or with another RescaleType.

    Args:
        series_uid: the SeriesInstanceUID to read where a folder or list holds several series.
        tolerance: how far a slice may lie off the even grid, as a fraction of the slice step (along the
            normal) or of a pixel (across it).
        assume_hounsfield: whether a CT that does not declare HU is taken to be in HU as it is rescaled,
            slope 1 and intercept 0 where they are not stated.
    """

    def __init__(
        self,
        *,
        series_uid: str | None = None,
        tolerance: float = 0.05,
        assume_hounsfield: bool = False,
    ) -> None:
        if not 0 <= tolerance < 0.5:
            raise InputError(f"tolerance must be at least 0 and less than 0.5, got {tolerance}.")
        self.series_uid = series_uid
        self.tolerance = tolerance
        self.assume_hounsfield = assume_hounsfield

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Tell whether every path is a folder or a DICOM file, by content and not by name."""
        return all(
            path.is_dir() or (path.is_file() and is_dicom(path)) for path in _paths(filename)
        )

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> DicomSource:
        """Check the paths; :meth:`get_data` reads them.

        ``LoadImage`` goes on to its other readers when a reader fails here, and they would read a refused
        series with an invented geometry. So nothing is opened before :meth:`get_data`.

        Raises:
            DicomSeriesError: for a NIfTI file, which the other readers are to take, and for no path.
        """
        paths = _paths(data)
        if not paths:
            raise DicomSeriesError("No path was given; expected a folder or at least one file.")
        if any(map(is_nifti, paths)):
            raise DicomSeriesError(f"{paths[0]}: a NIfTI file, not a DICOM series.")
        return DicomSource(paths)

    def get_data(self, img: DicomSource) -> tuple[np.ndarray, dict[str, Any]]:
        """Check, order and decode the slices.

        Returns:
            The volume (X, Y, Z), indexed by column, row and slice along the normal, int16 or float32, and
            its metadata: ``affine`` and ``original_affine`` (4, 4) to RAS+ mm, ``spatial_shape``,
            ``original_channel_dim``, ``space``, ``filename_or_obj``, ``modality``, ``series_uid``, and
            ``in_patient``, which is false where an ophthalmic tomography states no position in the
            patient (the affine then gives sizes in mm only).

        Raises:
            DicomSeriesError: when the files are unreadable or do not make up one volume.
        """
        with dicom_errors(Path(img.name)):
            stack = self.get_stack(img)
            if text(stack.header, "Modality") == "CT" and not self.assume_hounsfield:
                _check_hounsfield(stack.frames)
            volume = read_slices(stack.frames)
            affine = stack.geometry.affine
            meta = {
                MetaKeys.AFFINE: affine,
                MetaKeys.ORIGINAL_AFFINE: affine.copy(),
                MetaKeys.SPATIAL_SHAPE: np.asarray(stack.geometry.shape),
                MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel",
                MetaKeys.SPACE: SpaceKeys.RAS,
                ImageMetaKey.FILENAME_OR_OBJ: img.name,
                "modality": text(stack.header, "Modality"),
                "series_uid": text(stack.header, "SeriesInstanceUID"),
                "in_patient": stack.frames[0].plane.in_patient,
            }
        return volume.transpose(2, 1, 0), meta

    def get_stack(self, img: DicomSource) -> DicomStack:
        """Check and order the slices without decoding them.

        Raises:
            DicomSeriesError: when the files are unreadable or do not make up one volume.
        """
        with dicom_errors(Path(img.name)):
            headers = self._choose(_headers(img), img.name)
            frames = []
            for path, header in headers:
                with dicom_errors(path):
                    check_pixels(header, path)
                    frames += frames_of(header, path)
            geometry = stack_geometry([frame.plane for frame in frames], tolerance=self.tolerance)
        ordered = tuple(frames[index] for index in geometry.order)
        return DicomStack(ordered, geometry, headers[0][1])

    def _choose(self, headers: list[tuple[Path, Dataset]], name: str) -> list[tuple[Path, Dataset]]:
        found: dict[str, list[tuple[Path, Dataset]]] = {}
        for path, header in headers:
            found.setdefault(text(header, "SeriesInstanceUID"), []).append((path, header))
        wanted = self.series_uid
        if wanted is not None and wanted not in found:
            raise DicomSeriesError(f"{name}: no series {wanted}. It holds {_listed(found)}.")
        if wanted is None and len(found) > 1:
            raise DicomSeriesError(
                f"{name}: {len(found)} series: {_listed(found)}. Choose one with the reader's option "
                "'series_uid', or give the files of one series (find_series lists them)."
            )
        chosen = headers if wanted is None else found[wanted]
        patients = sorted({text(header, "PatientID") for _, header in chosen})
        if len(patients) > 1:
            raise DicomSeriesError(
                f"{name}: one series with the files of {len(patients)} patients: {patients[:_SHOWN]}. "
                "Separate the patients' files."
            )
        for path, header in chosen:
            if is_localiser(header):
                raise DicomSeriesError(
                    f"{path}: a localiser (ImageType {text(header, 'ImageType')}), not a slice of a "
                    "volume. Give the series' files without it (find_series passes over localisers)."
                )
        return chosen


def _check_hounsfield(frames: Sequence[Frame]) -> None:
    wrong = [frame for frame in frames if frame.unit != "HU"]
    if wrong:
        unit = wrong[0].unit
        what = (
            f"its RescaleType is {unit}"
            if unit
            else "RescaleSlope and RescaleIntercept are missing"
        )
        raise DicomSeriesError(
            f"{wrong[0].path}: a CT whose values are not declared to be HU: {what} (so in {len(wrong)} "
            f"of {len(frames)} slices). Export the series again with its rescaling. If its values are "
            "HU all the same, say so with assume_hounsfield: an option of DicomSeriesReader and "
            "LoadVolume, `--assume_hounsfield true` of the CT bundle, `--set assume_hounsfield=true` of "
            "the recipe volumes."
        )


def _paths(data: Sequence[PathLike] | PathLike) -> tuple[Path, ...]:
    if isinstance(data, str | os.PathLike):
        return (Path(data),)
    return tuple(Path(path) for path in data)


def _headers(source: DicomSource) -> list[tuple[Path, Dataset]]:
    headers: list[tuple[Path, Dataset]] = []
    for path in source.paths:
        if path.is_dir():
            headers += _folder_headers(path)
            continue
        if not path.exists():
            raise DicomSeriesError(f"{path}: no such file or folder.")
        header = read_header(path)
        if header is None:
            raise DicomSeriesError(
                f"{path}: not a DICOM file (no DICM prefix), or a truncated one."
            )
        if reason := why_no_slice(header, path):
            raise DicomSeriesError(f"{path}: {reason}.")
        headers.append((path, header))
    if not headers:
        raise DicomSeriesError(
            f"{source.name}: no DICOM images in this folder itself. find_series looks through the "
            "folders below it too."
        )
    return headers


def _folder_headers(folder: Path) -> list[tuple[Path, Dataset]]:
    """Return the slices in a folder; a file that may be one and cannot be read is refused.

    A warning names the first of other files that are not DICOM.
    """
    headers: list[tuple[Path, Dataset]] = []
    others: list[Path] = []
    for path in image_files(folder):
        if is_dead_link(path):
            raise DicomSeriesError(f"{path}: a link to a file that is not there.")
        header = read_header(path)
        if header is None:
            others.append(path)
        elif why_no_slice(header, path) is None:
            headers.append((path, header))
    suffixes = {_suffix(path) for path, _ in headers}
    for path in others:
        suffix = _suffix(path)
        alike = bool(suffix) and suffix in {*DICOM_SUFFIXES, *suffixes}
        if alike or (not suffix and not path.stat().st_size):
            raise DicomSeriesError(
                f"{path}: empty, truncated or not a DICOM file, though named like one. Complete the "
                "series, or take the file out of its folder."
            )
    if others and headers:
        _logger.warning(
            "%s: %d files beside the slices are not DICOM and are passed over, first %s",
            folder,
            len(others),
            others[0].name,
        )
    return headers


def _suffix(path: Path) -> str:
    """Return a file's suffix in lower case; a number, as at the end of a UID, is none."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def _listed(found: dict[str, list[tuple[Path, Dataset]]]) -> str:
    items = [
        f"{uid or '(no UID)'} ({len(files)} files, "
        f"{text(files[0][1], 'SeriesDescription') or 'no description'})"
        for uid, files in list(found.items())[:_SHOWN]
    ]
    more = len(found) - len(items)
    return ", ".join(items) + (f" and {more} more" if more else "")
