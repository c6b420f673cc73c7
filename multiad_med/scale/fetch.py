"""Studies behind an address, brought to this machine's disk while they are used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from multiad_med.data import FailureKind, StudyError
from multiad_med.preparation.sources import StudyKind
from multiad_med.utils.errors import InputError, file_errors

if TYPE_CHECKING:
    from multiad_med.scale.sources import ListedStudy

__all__ = [
    "check_scheme",
    "fetch_folder",
    "fetched",
    "is_uri",
    "local_path",
    "private_folder",
    "results_folder",
]

_URI = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SERIES = re.compile(r"^(https?://.+)/studies/([\d.]+)/series/([\d.]+)/?$")


def is_uri(text: str) -> bool:
    """Return whether a text is an address such as ``s3://bucket/a.nii.gz``, and no path."""
    return _URI.match(text) is not None


def fetch_folder(output_dir: str | Path) -> Path:
    """Return where studies of a run are put: below this command's ``TMPDIR``, on every machine.

    Results are named by the path below it.

    Args:
        output_dir: of the results; a folder or an address.
    """
    place = str(output_dir)
    place = place if is_uri(place) else os.path.abspath(place)
    name = hashlib.sha256(place.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"multiad-{name}"


def results_folder(output: str | Path) -> Path:
    """Return where results are made on this machine: the output itself, if it is a folder."""
    return fetch_folder(output) / "results" if is_uri(str(output)) else Path(output).absolute()


def private_folder(folder: Path) -> None:
    """Make a folder for patients' images, which others on the machine must not read.

    Raises:
        FileError: when it cannot be made, or is another user's.
    """
    with file_errors(folder, "written"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # whoever made it


def local_path(uri: str, folder: Path) -> Path:
    """Return where an address is put in a folder, such as ``folder/s3/bucket/a.nii.gz``."""
    if series := _SERIES.match(uri):
        return folder / series[3]
    parts = [part for part in uri.replace("://", "/").split("/") if part not in ("", ".", "..")]
    return folder.joinpath(*parts)


def check_scheme(uri: str) -> None:
    """Refuse an address that no installed package reads.

    Raises:
        InputError: naming what is missing.
    """
    if _SERIES.match(uri):
        return
    import fsspec

    scheme = uri.partition("://")[0]
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise InputError(f"{uri}: addresses of {scheme}:// cannot be read here: {error}") from error


@contextmanager
def fetched(study: ListedStudy, folder: Path, kind: StudyKind | None = None) -> Iterator[None]:
    """Have a study's files on this machine's disk inside the context.

    Args:
        study: whose files that have an address are put where its item says.
        folder: of :func:`fetch_folder`.
        kind: of the study, for a series of a DICOMweb server.

    Raises:
        StudyError: when one cannot be had.
    """
    files = [(uri, Path(study.item[key])) for key, uri in study.uris.items()]
    if files:
        private_folder(folder)
    try:
        for uri, path in files:
            if series := _SERIES.match(uri):
                _fetch_series(series, study.version, path.parent, kind)
            else:
                _fetch(uri, path)
        yield
    finally:
        for _, path in files:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _fetch(uri: str, path: Path) -> None:
    import fsspec

    _remove(path)  # what a killed worker has left
    with file_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        files, inside = fsspec.url_to_fs(uri)
        files.get(inside, str(path), recursive=files.isdir(inside))
    except Exception as error:  # each storage has its own types
        reason = str(error) or type(error).__name__
        raise StudyError(f"{uri} cannot be had: {reason}", kind=FailureKind.SYSTEM) from error


def _fetch_series(
    address: re.Match[str], version: str, folder: Path, kind: StudyKind | None
) -> None:
    from multiad_med.serving.dicomweb import DicomwebSource
    from multiad_med.serving.ledger import FoundStudy

    url, study, series = address.groups()
    source = DicomwebSource(url, kind=kind or StudyKind.MR, folder=folder)
    source.fetch(FoundStudy(series, version, json.dumps({"study": study})))
