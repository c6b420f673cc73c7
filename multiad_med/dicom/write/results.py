"""A study's anomaly map as DICOM objects that belong to its series."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.utils import optional_import
from pydicom import Dataset

from multiad_med.data.hashes import file_sha256
from multiad_med.dicom.write.instance import AnomalyResult, DicomKind
from multiad_med.dicom.write.overlay import overlays
from multiad_med.dicom.write.parametric_map import parametric_map
from multiad_med.dicom.write.referenced_series import (
    DicomResultError,
    ResultSource,
    SeriesPath,
    place_map,
    read_source,
)
from multiad_med.dicom.write.report import report
from multiad_med.dicom.write.segmentation import Segments, segmentation
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.errors import MultiADError, missing_package

__all__ = ["DicomKind", "DicomResultError", "Segments", "write_dicom_results"]


def write_dicom_results(
    *,
    source: SeriesPath,
    anomaly_map: str | os.PathLike[str],
    scores: Mapping[str, Any],
    output_dir: str | os.PathLike[str],
    kinds: Collection[DicomKind],
    segments: Segments = Segments.SEVERITY_LEVELS,
) -> dict[DicomKind, list[Path]]:
    """Write a study's results as DICOM, in the patient, study and frame of reference of its series.

    The folder is there with all files or not at all. Where no voxel reaches the threshold there is no
    segmentation (it cannot be empty; the report says so): its list is empty. UIDs depend on what
    results are made from, so that a result stored twice is one object.

    Args:
        source: a folder that holds one series, or the series' files; single slices, or one multi-frame
            object.
        anomaly_map: float32 NIfTI on the series' grid, as a bundle's inference writes it.
        scores: the content of the JSON that lies beside the map.
        output_dir: new or empty folder; its files are ``seg.dcm``, ``pm.dcm``, ``sr.dcm`` and, for each
            slice along the normal, ``overlay/0001.dcm``.
        kinds: what to write; at least one.
        segments: what the segmentation tells apart.

    Returns:
        The files of each kind.

    Raises:
        DicomResultError: no kind; a folder that has something in it; a source without UIDs, pixels or
            position, of several studies, with a header that is not DICOM's, or that is NIfTI; a map
            on another grid or with impossible values; scores that lack something, or that were made
            from other files (by their ``image_sha256``, where they have one).
        DicomSeriesError: when the files do not make up one volume.
        FileError: when a file cannot be read or written.
        MissingPackageError: without highdicom.
    """
    folder = Path(output_dir)
    if not kinds:
        raise DicomResultError(f"No kind of result; choose of {[str(k) for k in DicomKind]}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DicomResultError(
            f"{folder} is there and not an empty folder. DICOM results are written to a new one."
        )
    if not optional_import("highdicom")[1]:
        raise missing_package("highdicom")
    series = read_source(source)
    _check_origin(scores, source, series)
    result = AnomalyResult(series, place_map(anomaly_map, series), scores)
    files: dict[DicomKind, list[Path]] = {kind: [] for kind in DicomKind if kind in kinds}
    with atomic_path(folder) as temporary, _without_names():
        for kind in files:
            for name, dataset in _refused_by_name(_objects(result, kind, segments), series):
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                dataset.save_as(path, enforce_file_format=True)
                files[kind].append(folder / name)
        temporary.mkdir(exist_ok=True)
    return files


@contextmanager
def _without_names() -> Iterator[None]:
    """Silence highdicom's warning of patients' names without a caret, which would log the name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The string .* is unlikely to represent")
        yield


def _refused_by_name(
    objects: Iterator[tuple[str, Dataset]], series: ResultSource
) -> Iterator[tuple[str, Dataset]]:
    """Yield the objects; errors of highdicom and pydicom about the source's header name the series."""
    try:
        yield from objects
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, MultiADError):
            raise
        raise DicomResultError(
            f"{series.name}: its header keeps DICOM results from being made: {error}. Correct it at its "
            "source, and export the series again."
        ) from error


def _objects(
    result: AnomalyResult, kind: DicomKind, segments: Segments
) -> Iterator[tuple[str, Dataset]]:
    if kind is DicomKind.OVERLAY:
        for number, overlay in enumerate(overlays(result), 1):
            yield f"{kind}/{number:04d}.dcm", overlay
    elif kind is DicomKind.SEG:
        if (found := segmentation(result, segments)) is not None:
            yield f"{kind}.dcm", found
    else:
        make = parametric_map if kind is DicomKind.PARAMETRIC_MAP else report
        yield f"{kind}.dcm", make(result)


def _check_origin(scores: Mapping[str, Any], source: SeriesPath, series: ResultSource) -> None:
    """Refuse scores of other files; a series may have been hashed as a folder or as its files."""
    if not isinstance(scores, Mapping):
        raise DicomResultError(
            f"The scores are a JSON object, got {type(scores).__name__}. Give the JSON that a bundle's "
            "inference wrote beside the map."
        )
    wanted = scores.get("image_sha256")
    files = sorted({frame.path for frame in series.stack.frames})
    if wanted and wanted not in (file_sha256(files), file_sha256(source)):
        raise DicomResultError(
            f"The scores were made from other files ({scores.get('image', 'unknown')}) than "
            f"{series.name}; nothing is written into another patient's study. Give the series that "
            "inference was run on."
        )
