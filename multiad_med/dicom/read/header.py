"""DICOM headers without pixels, and what they say about a file's use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.utils.errors import reader_errors

__all__ = [
    "dicom_errors",
    "image_files",
    "is_dead_link",
    "is_localiser",
    "is_uid",
    "read_header",
    "sop_class",
    "text",
    "why_no_slice",
]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "Modality",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
]
_LOCALISER = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_VOLUMES = {"CT", "MR", "PT", "OPT"}
# Objects with rows and columns that are results about an image, or screens, not slices.
_RESULTS = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@contextmanager
def dicom_errors(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into a :class:`DicomSeriesError` that names the file."""
    with reader_errors(path, DicomSeriesError, "damaged or unreadable DICOM file"):
        yield


def read_header(path: Path) -> Dataset | None:
    """Return the elements of a file's header that this package uses; None if it is not DICOM.

    Only files with DICOM's preamble count as DICOM, since others cannot be told from junk.

    Raises:
        DicomSeriesError: when the file is DICOM, but is damaged, cannot be opened, or is deflated
            as a whole (its size once inflated is not limited).
    """
    with dicom_errors(path):
        try:
            meta = read_file_meta_info(path)
        except InvalidDicomError:
            return None
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise DicomSeriesError(
                f"{path}: transfer syntax {DeflatedExplicitVRLittleEndian.name} is not read. Convert "
                "the file to Explicit VR Little Endian."
            )
        return dcmread(path, stop_before_pixels=True, specific_tags=[*_TAGS])


def image_files(folder: Path) -> list[Path]:
    """Return the visible files directly in a folder, by name, with links that lead nowhere."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (path.is_file() or is_dead_link(path))
    )


def is_dead_link(path: Path) -> bool:
    """Tell whether a path is a link to a file that is not there."""
    return path.is_symlink() and not path.exists()


def text(header: Dataset, keyword: str) -> str:
    """Return an element as text, empty if absent; the parts of a list are joined by a backslash."""
    value = header.get(keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return "\\".join(str(part) for part in parts).strip()


def sop_class(header: Dataset) -> str:
    """Return the SOP class UID, empty if none is stated; the file's own header comes first."""
    return str(header.file_meta.get("MediaStorageSOPClassUID") or text(header, "SOPClassUID"))


def why_no_slice(header: Dataset, path: Path) -> str | None:
    """Return why a DICOM object is not a slice of a volume, or None if it may be one.

    CT, MR, PET and ophthalmic tomography count as slices even without a position, so that the checks
    of the series report it; other images need a position.

    Raises:
        DicomSeriesError: when an image, or an object without SOP class, ends before its size is stated.
    """
    kind = sop_class(header)
    modality = text(header, "Modality") or "unknown"
    if kind in _RESULTS:
        return f"{_RESULTS[kind]}, not an image"
    if header.get("Rows") is None or header.get("Columns") is None:
        if not kind or UID(kind).name.endswith("Image Storage"):
            raise DicomSeriesError(
                f"{path}: an image without Rows and Columns; truncated or damaged."
            )
        return f"not an image (modality {modality})"
    placed = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    capture = kind == _SECONDARY_CAPTURE or kind.startswith(f"{_SECONDARY_CAPTURE}.")
    if not placed and (capture or modality not in _VOLUMES):
        return f"an image without a position in space (modality {modality})"
    return None


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID: digits and dots, at most 64 of them, and so safe in a path or URL."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def is_localiser(header: Dataset) -> bool:
    """Tell whether ImageType says that the image is a localiser (scout, topogram)."""
    return not _LOCALISER.isdisjoint(text(header, "ImageType").upper().split("\\"))
