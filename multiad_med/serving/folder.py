"""Studies that are put into a folder: DICOM series and NIfTI volumes, once they are complete."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai.utils import ensure_tuple

from multiad_med.data.datalist import visible_files
from multiad_med.data.errors import StudyError
from multiad_med.io import DicomSeriesError, SeriesFinder
from multiad_med.io.dicom_header import image_files, is_dead_link
from multiad_med.io.dicom_series import EMPTY, NOT_DICOM
from multiad_med.preparation.sources import StudyKind, looks_like_mask
from multiad_med.serving.errors import ServingError, SourceUnavailableError
from multiad_med.serving.ledger import FoundStudy
from multiad_med.serving.source import FetchedStudy, FoundStudies

__all__ = ["FolderSource"]

_NIFTI = (".nii", ".nii.gz")
_DICOM = (".dcm", ".dicom", ".ima")


class FolderSource:
    """A folder tree that others write into.

    A study is complete when none of its files, and none beside them that cannot be read (yet), was
    changed for ``settle`` seconds; the time is that of the file system (``ctime``), which copying does
    not set back. DICOM series may share a folder or spread over several. A damaged DICOM file that is in
    no series' own folder is a study that fails, so that it is on record. Series of another modality,
    hidden files, masks by their name, results of inference and links to files outside are left alone.

    Args:
        folder: to watch.
        kind: what the volumes are.
        settle: seconds without a change.

    Raises:
        ServingError: when there is no such folder.
    """

    def __init__(self, folder: str | Path, *, kind: StudyKind, settle: float = 30.0) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.kind = kind
        self.settle = settle
        if not self.folder.is_dir():
            raise ServingError(f"{folder}: no such folder to watch.")
        self._finder = SeriesFinder(self.folder)

    def find(self) -> FoundStudies:
        """What is there now.

        Raises:
            SourceUnavailableError: when the folder cannot be read, as when it is unmounted.
        """
        try:
            return self._find()
        except DicomSeriesError as error:
            raise SourceUnavailableError("The watched folder is not there.") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SourceUnavailableError(f"The watched folder cannot be read: {reason}.") from error

    def _find(self) -> FoundStudies:
        search = self._finder.find()
        arriving = {path.parent for path, _ in search.skipped if self._is_fresh(path)}
        volumes: list[tuple[str, str | list[str], tuple[Path, ...]]] = []
        for path in visible_files(self.folder, "**/*"):
            if path.name.lower().endswith(_NIFTI) and not looks_like_mask(path):
                volumes.append((self._relative(path), str(path), (path,)))
        unsettled = 0
        for one in search.series:
            if one.modality != self.kind.modality:
                continue
            if arriving.intersection(path.parent for path in one.files):
                unsettled += 1
            elif self.kind is StudyKind.OCT:  # one object is one volume
                volumes += [(self._relative(path), str(path), (path,)) for path in one.files]
            else:
                volumes.append((one.uid or self._relative(one.files[0]), one.image, one.files))
        reasons = {}
        own = {one.folder for one in search.series}
        for path, reason in search.skipped:
            if _is_damaged(path, reason) and path.parent not in own:
                reasons[self._relative(path)] = reason
                volumes.append((self._relative(path), str(path), (path,)))
        studies = []
        for key, image, files in volumes:
            if not all(path.resolve().is_relative_to(self.folder) for path in files):
                continue
            if any(self._is_fresh(path) for path in files):
                unsettled += 1
                continue
            place = [self._relative(Path(path)) for path in ensure_tuple(image)]
            single = isinstance(image, str)
            about = {"image": place[0] if single else place, "damaged": reasons.get(key)}
            text = json.dumps({name: value for name, value in about.items() if value})
            studies.append(FoundStudy(key, self._version(files), text))
        return FoundStudies(studies, unsettled)

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
        """The study where it lies.

        Raises:
            StudyError: when it is no longer there, or a damaged file alone.
        """
        about = json.loads(study.place)
        place = about["image"]
        paths = [self.folder / name for name in ensure_tuple(place)]
        if gone := [path for path in paths if not path.exists()]:
            raise StudyError(f"{gone[0]} is no longer there.")
        if reason := about.get("damaged"):
            raise StudyError(reason if str(paths[0]) in reason else f"{paths[0]}: {reason}.")
        image = [str(path) for path in paths] if isinstance(place, list) else str(paths[0])
        if paths[0].name.lower().endswith(_NIFTI):
            return FetchedStudy(image)
        files = [f for p in paths for f in (image_files(p) if p.is_dir() else [p])]
        return FetchedStudy(image, tuple(files))

    def store(self, files: Sequence[Path]) -> None:
        """Nothing: results stay in the output folder."""

    def release(self, study: FoundStudy) -> None:
        """Nothing: a study is left as it lies."""


def _is_damaged(path: Path, reason: str) -> bool:
    """Whether a file that is in no series was to be of one: damaged, or DICOM by its name alone."""
    by_name = reason in (NOT_DICOM, EMPTY) and path.suffix.lower() in _DICOM
    return by_name or reason.startswith(f"{path}: ")


def check_outside(output: Path, watched: Path) -> None:
    """Refuse results inside the watched folder, where they would be found as studies.

    Raises:
        ServingError: naming both.
    """
    if Path(os.path.abspath(output)).resolve().is_relative_to(watched.resolve()):
        raise ServingError(f"{output} lies in the watched folder {watched}; choose another output.")
