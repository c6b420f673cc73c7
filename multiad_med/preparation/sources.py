"""What a user points at: a folder, a table, an archive; NIfTI or DICOM."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import DatalistError
from multiad_med.data.layouts import find_volumes
from multiad_med.io.dicom_series import find_series

__all__ = ["find_nifti_or_dicom"]

_logger = logging.getLogger(__name__)


def _name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text).strip("._") or "unnamed"


def find_nifti_or_dicom(
    source: str | Path,
    *,
    image_glob: str = "**/*.nii*",
    label_glob: str | None = None,
    modalities: list[str] | None = None,
) -> list[dict[str, Any]]:
    """List the volumes of a table or folder: NIfTI where the folder has any, else DICOM series.

    Args:
        source: folder, or a table as :func:`multiad_med.data.layouts.find_volumes` reads it.
        image_glob, label_glob: of NIfTI in a folder.
        modalities: of DICOM series, such as ``[CT]``; none means all.

    Returns:
        Items as of :func:`find_volumes`; of DICOM, ``subject`` is the patient's identifier and each
        image series is a study.

    Raises:
        DatalistError: when there is neither.
    """
    path = Path(source).expanduser()
    if not path.is_dir() or any(p.is_file() for p in path.glob(image_glob)):
        return find_volumes(path, image_glob=image_glob, label_glob=label_glob)
    search = find_series(path)
    chosen = [s for s in search.series if modalities is None or s.modality in modalities]
    if not chosen:
        kinds = sorted({s.modality for s in search.series})
        raise DatalistError(
            f"{path} holds no file that matches {image_glob!r} and no DICOM image series"
            + (f" of the modalities {modalities}, but of {kinds}." if kinds else ".")
        )
    for passed, reason in search.skipped:
        _logger.info("%s passed over: %s", passed, reason)
    return [
        {
            "image": series.image,
            "subject": _name(series.patient_id),
            "study": f"{_name(series.patient_id)}/{_name(series.uid)}",
        }
        for series in chosen
    ]
