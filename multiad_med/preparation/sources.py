"""What a user points at: a folder, a table, an archive; NIfTI or DICOM."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import (
    DATALIST_NAME,
    DatalistError,
    load_datalist,
    train_or_infer,
)
from multiad_med.data.layouts import find_images, find_mvtec, find_volumes
from multiad_med.data.layouts.files import existing_folder, study_name, walk
from multiad_med.data.layouts.hints import looks_like
from multiad_med.data.splits import SubjectSplit
from multiad_med.io.dicom_series import find_series

__all__ = ["find_nifti_or_dicom", "load_pictures", "load_studies"]

_logger = logging.getLogger(__name__)

# Parts of MVTec's tree, which a plain folder of pictures has not.
_MVTEC_PART = re.compile(r"(^|/)(train|test)/[^/]+/[^/]+$")
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


def load_pictures(
    source: str | Path,
    *,
    categories: Sequence[str] | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> dict[str, list[dict[str, Any]]]:
    """The pictures to train on or to infer: MVTec's tree, a plain folder, or a datalist.

    Args:
        source: root or one category of an MVTec-like tree (:func:`find_mvtec`): a share of
            ``train/good`` is held out for calibration where no validation is published. Or any
            other folder of pictures (:func:`find_images`): the normal ones train and calibrate, and
            ``test`` has every picture. Or a datalist, a folder with one, or prepared slices.
        categories: names of the categories wanted; none means all.
        validation: share of the normal pictures that is held out.
        seed: of the division.

    Raises:
        DatalistError: when there are no pictures, a category is unknown or has no normal picture
            for training, or what :func:`multiad_med.data.load_datalist` refuses.
    """
    path = Path(source)
    if path.is_file() or (path / DATALIST_NAME).is_file():
        return _of_categories(load_datalist(path), categories, path)
    folder = existing_folder(path)
    names = [file.relative_to(folder).as_posix() for file in walk(folder)]
    if looks_like(names) == "images" and not any(_MVTEC_PART.search(name) for name in names):
        pictures = find_images(folder)
        normal = [item for item in pictures if not item["anomalous"]]
        sections = train_or_infer(normal, validation_fraction=validation, seed=seed)
        return _of_categories({**sections, "test": pictures}, categories, path)
    items = find_mvtec(folder, categories=categories)
    split = SubjectSplit(
        training=1 - validation, validation=validation, test=0, seed=seed, stratify="category"
    )
    sections = split(items)
    trained = {item["category"] for item in sections["training"]}
    if bare := sorted({item["category"] for item in items} - trained):
        raise DatalistError(
            f"{folder}: no normal picture for training in the categories {bare}. Put normal pictures "
            f"into train/good, or choose among {sorted(trained)} by `categories`."
        )
    return sections


def _of_categories(
    sections: dict[str, list[dict[str, Any]]], categories: Sequence[str] | None, source: Path
) -> dict[str, list[dict[str, Any]]]:
    if categories is None:
        return sections
    known = {str(item.get("category", "")) for items in sections.values() for item in items} - {""}
    if unknown := sorted(set(categories) - known):
        raise DatalistError(
            f"{source} has no category {unknown}; it has {sorted(known) or 'none'}."
        )
    return {
        name: [item for item in items if item.get("category") in categories]
        for name, items in sections.items()
    }
