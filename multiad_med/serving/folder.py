"""Studies that are put into a folder: DICOM series, NIfTI volumes or images, once they are complete."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from multiad_med.data.study_errors import StudyError
from multiad_med.data.study_files import is_result
from multiad_med.data.tree import is_volume
from multiad_med.dicom.read import DicomSeriesError, SeriesFinder
from multiad_med.dicom.read.header import image_files, is_dead_link
from multiad_med.dicom.read.series import EMPTY, NOT_DICOM, DicomSeries
from multiad_med.preparation.sources import StudyKind, looks_like_mask
from multiad_med.serving.ledger import FoundStudy, PassedOver
from multiad_med.serving.service_errors import ServingError, SourceUnavailableError, TryAgainError
from multiad_med.serving.study_source import FetchedStudy, FoundStudies
from multiad_med.utils.suffixes import DICOM_SUFFIXES, is_image, is_nifti

__all__ = ["FolderSource"]


@dataclass(frozen=True)
class _Found:
    """A volume, or something to pass over, which ``what`` names."""

    key: str
    image: str | list[str]
    files: tuple[Path, ...]
    what: PassedOver | None = None
    damaged: str = ""
    is_series: bool = False


class FolderSource:
    """Find studies in a folder tree that others write into.

    A study is complete when none of its files, and no unreadable file beside them, has changed for
    ``settle`` seconds. The time is that of the file system (``ctime``), which copying does not set back.
    DICOM series may share a folder or spread over several. A damaged DICOM file that is in no series'
    own folder is a study that fails, so that it is on record. Series of another modality, masks by their
    name, results of inference, links to files outside and whatever else is no study are passed over and
    listed; hidden files are ignored. Where images are watched for, each image file is a study.

    Args:
        folder: to watch.
        kind: what the volumes are; None for images.
        settle: seconds without a change.

    Raises:
        ServingError: when there is no such folder.
    """

    def __init__(self, folder: str | Path, *, kind: StudyKind | None, settle: float = 30.0) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.kind = kind
        self.settle = settle
        if not self.folder.is_dir():
            raise ServingError(f"{folder}: no such folder to watch.")
        self._finder = SeriesFinder(self.folder)

    def find(self) -> FoundStudies:
        """Return what is there now.

        Raises:
            SourceUnavailableError: when the folder cannot be read, as when it is unmounted.
        """
        try:
            return self._find()
        except DicomSeriesError as error:
            raise SourceUnavailableError("The watched folder is not there.") from error
        except OSError as error:
            reason = f": {error.strerror}." if error.strerror else "."
            raise SourceUnavailableError(f"The watched folder cannot be read{reason}") from error

    def _find(self) -> FoundStudies:
        if self.kind is None:
            return self._sorted(self._images(), arriving=set())
        search = self._finder.find()
        arriving = {path.parent for path, _ in search.skipped if self._is_fresh(path)}
        own = {one.folder for one in search.series}
        volumes = self._series(search.series, self.kind) + self._files(search.skipped, own)
        return self._sorted(volumes, arriving=arriving)

    def _sorted(self, everything: Iterable[_Found], *, arriving: set[Path]) -> FoundStudies:
        """Sort what was found: studies, what is passed over, what is not complete yet.

        Args:
            everything: that was found.
            arriving: folders of unreadable files that have just changed.
        """
        studies: list[FoundStudy] = []
        passed_over: list[tuple[FoundStudy, PassedOver]] = []
        unsettled = 0
        for found in everything:
            if found.what is None and not self._is_inside(found.files):
                found = replace(found, what=PassedOver.OUTSIDE)
            beside = found.is_series and arriving.intersection(p.parent for p in found.files)
            if beside or any(self._is_fresh(path) for path in found.files):
                unsettled += found.what is not PassedOver.NOT_AN_IMAGE  # such as a log that grows
            elif found.what is not None:
                passed_over.append((self._study(found), found.what))
            else:
                studies.append(self._study(found, self._version(found.files)))
        return FoundStudies(studies, unsettled, passed_over=passed_over)

    def _images(self) -> list[_Found]:
        """Return the image files, and other files to pass over."""
        return [
            _Found(self._relative(path), str(path), (path,), _what_of_image(path))
            for path in sorted(self.folder.rglob("*"))
            if (path.is_file() or is_dead_link(path))
            and not any(part.startswith(".") for part in path.relative_to(self.folder).parts)
        ]

    def _series(self, series: Iterable[DicomSeries], kind: StudyKind) -> list[_Found]:
        """Return the DICOM series; in optical tomography one object is one volume."""
        found = []
        parts: list[tuple[str, str | list[str], tuple[Path, ...]]]
        for one in series:
            what = None if one.modality == kind.modality else PassedOver.MODALITY
            if kind is StudyKind.OCT and what is None:
                parts = [(self._relative(path), str(path), (path,)) for path in one.files]
            else:
                parts = [(one.uid or self._relative(one.files[0]), one.image, one.files)]
            found += [_Found(*part, what=what, is_series=True) for part in parts]
        return found

    def _files(
        self, skipped: Iterable[tuple[Path, str]], own: Collection[Path | None]
    ) -> list[_Found]:
        """Return the files in no series: volumes of other formats, damaged ones, and other files."""
        found = []
        for path, reason in skipped:
            what = _what(path, reason)
            damaged = reason if what is None and not is_nifti(path) else ""
            if damaged and path.parent in own:  # its series reports it
                continue
            found.append(_Found(self._relative(path), str(path), (path,), what, damaged))
        return found

    def _study(self, found: _Found, version: str = "") -> FoundStudy:
        place = [self._relative(Path(path)) for path in ensure_tuple(found.image)]
        about: dict[str, Any] = {"image": place[0] if isinstance(found.image, str) else place}
        if found.damaged:
            about["damaged"] = found.damaged
        return FoundStudy(found.key, version, json.dumps(about))

    def _is_inside(self, files: Iterable[Path]) -> bool:
        return all(path.resolve().is_relative_to(self.folder) for path in files)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _is_fresh(self, path: Path) -> bool:
        try:
            status = path.lstat() if is_dead_link(path) else path.stat()
            return time.time() - status.st_ctime < self.settle
        except FileNotFoundError:  # taken away, or renamed: something goes on here
            return True

    def _version(self, files: Iterable[Path]) -> str:
        digest = hashlib.sha256()
        for path in files:
            stat = path.stat()
            digest.update(f"{self._relative(path)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def fetch(self, study: FoundStudy) -> FetchedStudy:
        """Return the study where it lies.

        Raises:
            TryAgainError: when it is no longer there.
            StudyError: when it is a damaged file alone.
        """
        about = json.loads(study.place)
        place = about["image"]
        paths = [self.folder / name for name in ensure_tuple(place)]
        if gone := [path for path in paths if not path.exists()]:
            raise TryAgainError(f"{gone[0]} is no longer there.")
        if reason := about.get("damaged"):
            raise StudyError(reason if str(paths[0]) in reason else f"{paths[0]}: {reason}.")
        image = [str(path) for path in paths] if isinstance(place, list) else str(paths[0])
        if self.kind is None or is_nifti(paths[0]):
            return FetchedStudy(image)
        files = [f for p in paths for f in (image_files(p) if p.is_dir() else [p])]
        return FetchedStudy(image, tuple(files))

    def store(self, files: Sequence[Path]) -> None:
        """Do nothing: results stay in the output folder."""

    def release(self, study: FoundStudy) -> None:
        """Do nothing: a study stays where it is."""


def _what_of_image(path: Path) -> PassedOver | None:
    """Return what a file is where images are watched for; None for an image."""
    if is_dead_link(path):
        return PassedOver.UNREADABLE
    if is_result(path):
        return PassedOver.RESULT
    if not is_image(path):
        return PassedOver.NOT_AN_IMAGE
    return PassedOver.MASK if looks_like_mask(path) else None


def _what(path: Path, reason: str) -> PassedOver | None:
    """Return what a file in no series is; None for a study: NIfTI, or damaged DICOM.

    Args:
        path: of the file.
        reason: why it is in no series.
    """
    if is_dead_link(path):
        return PassedOver.UNREADABLE
    if is_result(path):
        return PassedOver.RESULT
    if is_nifti(path):
        return PassedOver.MASK if looks_like_mask(path) else None
    if is_volume(path):
        return PassedOver.FORMAT
    by_name = reason in (NOT_DICOM, EMPTY) and path.suffix.lower() in DICOM_SUFFIXES
    if by_name or reason.startswith(f"{path}: "):
        return None
    known = {EMPTY: PassedOver.UNREADABLE, NOT_DICOM: PassedOver.NOT_AN_IMAGE}
    copy = reason.startswith("a copy of ")
    return known.get(reason, PassedOver.DUPLICATE if copy else PassedOver.NOT_A_VOLUME)


def check_outside(output: Path, watched: Path) -> None:
    """Refuse results inside the watched folder, where they would be found as studies.

    Raises:
        ServingError: naming both.
    """
    if Path(os.path.abspath(output)).resolve().is_relative_to(watched.resolve()):
        raise ServingError(f"{output} lies in the watched folder {watched}; choose another output.")
