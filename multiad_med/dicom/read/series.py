"""Which image series a folder tree of DICOM files holds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset

from multiad_med.data.tree import walk
from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.header import (
    dicom_errors,
    is_dead_link,
    is_localiser,
    read_header,
    text,
    why_no_slice,
)
from multiad_med.utils.errors import InputError

__all__ = ["EMPTY", "NOT_DICOM", "DicomSeries", "SeriesFinder", "SeriesSearch", "find_series"]

EMPTY = "an empty file"
NOT_DICOM = "not a DICOM file"


@dataclass(frozen=True)
class DicomSeries:
    """The image files of one series; the reader checks whether they make up one volume.

    Attributes:
        uid: SeriesInstanceUID, empty if the files state none (their folder then keeps them apart).
        patient_id: PatientID of the first file.
        study_uid: StudyInstanceUID of the first file.
        description: SeriesDescription of the first file.
        modality: Modality of the first file.
        number: SeriesNumber of the first file, if it is a number.
        files: all its files, sorted.
        folder: the folder that holds exactly these images and no others, if there is one.
    """

    uid: str
    patient_id: str
    study_uid: str
    description: str
    modality: str
    number: int | None
    files: tuple[Path, ...]
    folder: Path | None

    @property
    def image(self) -> str | list[str]:
        """The value for a datalist: the folder if it holds nothing else, else the list of files."""
        return str(self.folder) if self.folder else [str(path) for path in self.files]


@dataclass(frozen=True)
class SeriesSearch:
    """What a folder tree holds.

    Attributes:
        series: image series, by patient, study and series number.
        skipped: files that belong to no series, with the reason.
    """

    series: list[DicomSeries]
    skipped: list[tuple[Path, str]]


def find_series(folder: str | os.PathLike[str]) -> SeriesSearch:
    """Find the image series below a folder by headers only; names of files do not matter.

    Passed over, with the reason, are localisers (by ImageType), objects that are no slices
    (reports, presentation states, segmentations, images without a position), copies of an object
    that was found before, damaged and empty files, links that lead nowhere, and what is not DICOM.
    Links are followed. Hidden files are not looked at.
    A damaged file does not shrink a series silently: where it lies in the series' own folder,
    :attr:`DicomSeries.image` is still that folder, and the reader names the file.

    Raises:
        DicomSeriesError: when the folder does not exist, or one in it cannot be read.
    """
    return SeriesFinder(folder).find()


class SeriesFinder:
    """:func:`find_series` for a folder that is searched again and again.

    Headers are read again only of files whose size or time changed since the last look.

    Args:
        folder: the top of the tree.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._seen: dict[Path, tuple[tuple[int, int], _Look]] = {}

    def find(self) -> SeriesSearch:
        """Return what the folder holds now.

        Raises:
            DicomSeriesError: when the folder does not exist.
        """
        if not self.folder.is_dir():
            raise DicomSeriesError(f"{self.folder}: no such folder.")
        groups: dict[tuple[str, Path | None], list[tuple[Path, dict[str, Any]]]] = {}
        skipped: list[tuple[Path, str]] = []
        images: dict[Path, set[Path]] = {}
        objects: dict[str, Path] = {}
        for path, look in self._looks():
            if not look.image:
                skipped.append((path, look.reason))
                continue
            images.setdefault(path.parent, set()).add(path)
            if look.reason:
                skipped.append((path, look.reason))
            elif look.instance in objects:
                skipped.append((path, f"a copy of {objects[look.instance]}"))
            else:
                if look.instance:
                    objects[look.instance] = path
                uid = look.about["uid"]
                groups.setdefault((uid, None if uid else path.parent), []).append(
                    (path, look.about)
                )
        series = [_series(files, images) for files in groups.values()]
        return SeriesSearch(sorted(series, key=_order), skipped)

    def _looks(self) -> Iterable[tuple[Path, _Look]]:
        seen, self._seen = self._seen, {}
        for path in _files_below(self.folder):
            if is_dead_link(path):
                yield path, _Look(False, "a link to a file that is not there")
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:  # taken away since the folder was listed
                continue
            signature = (stat.st_size, stat.st_mtime_ns)
            known = seen.get(path)
            look = known[1] if known and known[0] == signature else _look(path)
            self._seen[path] = (signature, look)
            yield path, look


@dataclass(frozen=True)
class _Look:
    """What one file is: an image to group by ``about``, unless there is a reason not to."""

    image: bool
    reason: str = ""
    instance: str = ""
    about: dict[str, Any] = field(default_factory=dict)


def _look(path: Path) -> _Look:
    try:
        if not path.stat().st_size:
            return _Look(False, EMPTY)
        header = read_header(path)
        with dicom_errors(path):
            reason = NOT_DICOM if header is None else why_no_slice(header, path)
        if header is None or reason:
            return _Look(False, str(reason))
        with dicom_errors(path):
            localiser = "a localiser" if is_localiser(header) else ""
            return _Look(True, localiser, text(header, "SOPInstanceUID"), _describe(header))
    except DicomSeriesError as error:
        return _Look(False, str(error))


def _files_below(top: Path) -> Iterable[Path]:
    try:
        yield from walk(top)
    except InputError as error:
        raise DicomSeriesError(str(error)) from error


def _describe(header: Dataset) -> dict[str, Any]:
    number = text(header, "SeriesNumber")
    return {
        "uid": text(header, "SeriesInstanceUID"),
        "patient_id": text(header, "PatientID"),
        "study_uid": text(header, "StudyInstanceUID"),
        "description": text(header, "SeriesDescription"),
        "modality": text(header, "Modality"),
        "number": int(number) if number.lstrip("-").isdecimal() else None,
    }


def _series(files: list[tuple[Path, dict[str, Any]]], images: dict[Path, set[Path]]) -> DicomSeries:
    files = sorted(files, key=lambda file: file[0])
    paths = tuple(path for path, _ in files)
    parent = paths[0].parent
    folder = parent if images[parent] == set(paths) else None
    return DicomSeries(**files[0][1], files=paths, folder=folder)


def _order(series: DicomSeries) -> tuple[str, str, float, str, Path]:
    number = float("inf") if series.number is None else series.number
    return series.patient_id, series.study_uid, number, series.uid, series.files[0]
