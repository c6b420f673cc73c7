"""What a user points at: a folder, a table, an archive; NIfTI or DICOM."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import (
    DATALIST_NAME,
    DatalistError,
    load_datalist,
    train_or_infer,
)
from multiad_med.data.layouts import find_volumes
from multiad_med.data.layouts.files import study_name
from multiad_med.io.dicom_series import find_series

__all__ = ["find_nifti_or_dicom", "load_studies"]

_logger = logging.getLogger(__name__)

_MASK = re.compile(r"((^|[-_.])(seg|segmentation|labels?|roi)|mask)\d*[-_.]", re.IGNORECASE)


def find_nifti_or_dicom(
    source: str | Path,
    *,
    image_glob: str = "**/*.nii*",
    label_glob: str | None = None,
    modalities: list[str] | None = None,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """List the volumes of a table or folder: NIfTI where the folder has any, else DICOM series.

    Args:
        source: folder, or a table as :func:`multiad_med.data.layouts.find_volumes` reads it.
        image_glob, label_glob: of NIfTI in a folder.
        modalities: of DICOM series, such as ``[CT]``; none means all.
        kind: ``mr`` or ``ct``, as which they will be prepared; none does not matter.

    Returns:
        Items as of :func:`find_volumes`; of DICOM, ``subject`` is the patient's identifier and each
        image series is a study.

    Raises:
        DatalistError: when there is neither, or a series is of another kind.
    """
    path = Path(source).expanduser()
    if not path.is_dir() or any(p.is_file() for p in path.glob(image_glob)):
        items = find_volumes(path, image_glob=image_glob, label_glob=label_glob)
        masks = [i["image"] for i in items if path.is_dir() and _MASK.search(Path(i["image"]).name)]
        if masks:
            raise DatalistError(
                f"{len(masks)} of {len(items)} files that match {image_glob!r} look like masks, first "
                f"{masks[0]}. Set label_glob to theirs (such as '**/*seg.nii.gz'), or image_glob to the "
                "images only."
            )
        return items
    search = find_series(path)
    chosen = [s for s in search.series if modalities is None or s.modality in modalities]
    if not chosen:
        kinds = sorted({s.modality for s in search.series})
        raise DatalistError(
            f"{path} holds no file that matches {image_glob!r} and no DICOM image series"
            + (f" of the modalities {modalities}, but of {kinds}." if kinds else ".")
        )
    wrong = [
        s for s in chosen if kind and s.modality in ("CT", "MR") and s.modality != kind.upper()
    ]
    if wrong:
        raise DatalistError(
            f"{len(wrong)} of {len(chosen)} DICOM series below {path} are {wrong[0].modality} and would "
            f"be prepared as {str(kind).upper()}, first {wrong[0].description!r} of patient "
            f"{wrong[0].patient_id!r}. Set kind={wrong[0].modality.lower()}, or choose series by "
            f"dicom_modalities."
        )
    for passed, reason in search.skipped:
        _logger.warning("%s passed over: %s", passed, reason)
    items = []
    for number, series in enumerate(chosen):
        patient = study_name((series.patient_id or series.files[0].parent.name).replace("/", "_"))
        items.append(
            {
                "image": series.image,
                "subject": patient,
                "study": study_name(patient, series.uid or f"series{number}"),
            }
        )
    return items


def load_studies(
    source: str | Path,
    *,
    image_glob: str = "**/*.nii*",
    label_glob: str | None = None,
    kind: str | None = None,
    seed: int = 0,
) -> dict[str, list[dict[str, Any]]]:
    """The studies to train on or to infer: a datalist, or a folder of NIfTI or DICOM.

    Args:
        source: datalist, folder with one, prepared slices, or any folder of volumes.
        image_glob, label_glob, seed: see :func:`multiad_med.data.load_datalist`.
        kind: ``mr`` or ``ct``, which DICOM series must be.

    Raises:
        DatalistError: as of :func:`multiad_med.data.load_datalist`, or when the folder holds
            neither NIfTI nor DICOM.
    """
    path = Path(source)
    listed = path.is_file() or (path / DATALIST_NAME).is_file()
    if listed or not path.is_dir() or any(p.is_file() for p in path.glob(image_glob)):
        return load_datalist(path, image_glob=image_glob, label_glob=label_glob, seed=seed)
    return train_or_infer(find_nifti_or_dicom(path, image_glob=image_glob, kind=kind), seed=seed)
