"""From what a user gives to studies: a folder, table or datalist of NIfTI, DICOM or B-scans."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from multiad_med._moved import moved_name
from multiad_med.data.datalist import (
    DATALIST_NAME,
    PATH_KEYS,
    load_datalist,
    train_or_infer,
)
from multiad_med.data.masks import looks_like_mask
from multiad_med.data.sequences import (
    Named,
    check_one_sequence,
    matches_series,
    named_files,
    sequence_of,
)
from multiad_med.data.study_files import (
    DatalistError,
    find_studies,
    is_result,
    matching,
    subject_folder,
    visible_files,
)
from multiad_med.data.tree import is_volume, volume_name
from multiad_med.datasets import find_bscans, find_volumes
from multiad_med.datasets.layout_files import by_study, first, study_name
from multiad_med.dicom.read.series import NOT_DICOM, DicomSeries, SeriesSearch, find_series
from multiad_med.preparation.image_splits import load_images  # its place before 0.1.0
from multiad_med.utils.choose import choose

__all__ = [
    "StudyKind",
    "find_nifti_and_dicom",
    "load_images",
    "load_studies",
    "looks_like_mask",
]

_logger = logging.getLogger(__name__)

# Files beside volumes that are none: notes, tables, the other half of a pair.
_COMPANIONS = re.compile(
    r"\.(json|csv|tsv|txt|md|html?|pdf|xml|ya?ml|log|bval|bvec|mat|hdr(\.gz)?|z?raw(\.gz)?|py|sh)$|"
    r"^(README|LICENSE|CHANGES|DICOMDIR)$",
    re.IGNORECASE,
)


class StudyKind(StrEnum):
    """What the volumes of a folder are."""

    MR = "mr"
    CT = "ct"
    OCT = "oct"

    @property
    def modality(self) -> str:
        """DICOM's name of it."""
        return "OPT" if self is StudyKind.OCT else self.upper()


def _images(
    items: list[dict[str, Any]], folder: Path, image_glob: str | None, *, mr: bool
) -> list[dict[str, Any]]:
    """Return the items after a check that none is a mask by its name and all are of one sequence.

    Args:
        items: of volumes.
        folder: where they lie.
        image_glob: pattern that found them.
        mr: whether they may be of several MR sequences.
    """
    masks = [i["image"] for i in items if looks_like_mask(Path(i["image"]))]
    if mr:  # first, since the glob of a sequence leaves masks out too
        others = [item for item in items if item["image"] not in masks]
        check_one_sequence(named_files(others, folder), folder, is_file=True)
    if masks:
        raise DatalistError(
            f"{len(masks)} of {len(items)} files, each of which {matching(image_glob)}, look like masks, "
            f"first {masks[0]}. Set label_glob to theirs (such as '**/*seg.nii.gz'), or image_glob to "
            "the images only (such as '**/*_T1w.nii.gz'). If they are images, list them in a "
            "datalist.json."
        )
    return items


def _without_dicom(items: list[dict[str, Any]], search: SeriesSearch) -> list[dict[str, Any]]:
    """Return the items that are no DICOM objects, which a glob of folders matches too."""
    objects = {path for series in search.series for path in series.files}
    objects |= {path for path, reason in search.skipped if reason != NOT_DICOM}
    return [i for i in items if is_volume(Path(i["image"])) or Path(i["image"]) not in objects]


def _chosen_series(
    series: Sequence[DicomSeries], folder: Path, image_glob: str | None
) -> list[DicomSeries]:
    """Return the series that a glob chooses, after a check that MR series are of one sequence."""

    def chooses(one: DicomSeries, pattern: str) -> bool:
        return matches_series(one.description, one.files[0].relative_to(folder), pattern)

    chosen = [one for one in series if image_glob is None or chooses(one, image_glob)]
    if len(chosen) < len(series):
        _logger.warning(
            "%d of %d DICOM series passed over: %r matches neither path nor description: %s",
            len(series) - len(chosen),
            len(series),
            image_glob,
            first(sorted({repr(one.description) for one in series if one not in chosen})),
        )
    images = [one for one in chosen if one.modality == "MR"]
    tells_apart = len({one.patient_id for one in images}) > 1
    described: dict[str, set[str]] = {}
    for one in images:
        described.setdefault(one.study_uid, set()).add(one.description)
    named = [
        Named(
            (tells_apart and one.patient_id) or one.study_uid or str(one.files[0].parent),
            sequence_of(one.description)
            # Other descriptions mean different sequences for sure only within one study.
            or (one.description if len(described[one.study_uid]) > 1 else ""),
            one.description,
            one.files[0].relative_to(folder),
            lambda pattern, one=one: chooses(one, pattern),  # type: ignore[misc]
        )
        for one in images
    ]
    check_one_sequence(named, folder, is_file=False)
    return chosen


def _tell_others(search: SeriesSearch, folder: Path, listed: Iterable[dict[str, Any]]) -> None:
    """Log what is neither an image series nor listed already."""
    known = {Path(name) for item in listed for key in PATH_KEYS for name in _names(item, key)}
    strange, others = [], []
    for path, reason in search.skipped:
        if path in known or path.parent in known or is_result(path):
            continue
        if reason != NOT_DICOM:
            _logger.warning("%s passed over: %s", path, reason)
        elif is_volume(path):
            others.append(path)
        elif not _COMPANIONS.search(path.name):
            strange.append(path)
    if others:
        _logger.info(
            "%d volumes passed over, which are neither images nor masks by the patterns: %s",
            len(others),
            first(path.relative_to(folder) for path in others),
        )
    if strange:
        _logger.warning(
            "%s: %d files are no volumes of a known form and are passed over: %s",
            folder,
            len(strange),
            first(path.relative_to(folder) for path in strange),
        )


def _names(item: dict[str, Any], key: str) -> list[str]:
    value = item.get(key, [])
    return [value] if isinstance(value, str) else list(value)


def _dicom_items(series: Sequence[DicomSeries], folder: Path) -> list[dict[str, Any]]:
    items = []
    subjects = _dicom_subjects(series, folder)
    for number, (one, known) in enumerate(zip(series, subjects, strict=True)):
        subject = known or one.files[0].parent.name
        study = study_name(subject.replace("/", "_"), one.uid or f"series{number}")
        items.append({"image": one.image, "subject": subject, "study": study})
    return by_study(items)


def _dicom_subjects(series: Sequence[DicomSeries], folder: Path) -> list[str]:
    """Return each series' patient: by PatientID where it differs, else by sub-folder, else empty.

    Anonymised data often have one PatientID for everybody, or none.
    """
    places = [subject_folder(one.files[0], folder) for one in series]
    identifiers = {one.patient_id for one in series if one.patient_id}
    if len(identifiers) > 1:
        for identifier in sorted(identifiers):
            own = {p for p, one in zip(places, series, strict=True) if one.patient_id == identifier}
            if len(own) > 1:
                _logger.warning(
                    "PatientID %r is in %d sub-folders (%s) and is taken for one subject. If these are "
                    "several patients, name them in a datalist.json.",
                    identifier,
                    len(own),
                    first(sorted(own)),
                )
        return [one.patient_id or p for p, one in zip(places, series, strict=True)]
    if len(set(places)) > 1:
        _logger.warning(
            "PatientID is %s in all DICOM series below %s: each of the %d sub-folders is taken for a "
            "subject of its own.",
            repr(identifiers.pop()) if identifiers else "empty",
            folder,
            len(set(places)),
        )
        return [p or one.patient_id for p, one in zip(places, series, strict=True)]
    return [one.patient_id or p for p, one in zip(places, series, strict=True)]


def _nothing(folder: Path, looked_for: str, series: Iterable[DicomSeries]) -> DatalistError:
    kinds = sorted({one.modality for one in series})
    others = f" of that modality, but of {kinds}" if kinds else ""
    return DatalistError(f"{folder} holds no {looked_for} and no DICOM image series{others}.")


def find_nifti_and_dicom(
    source: str | Path,
    *,
    image_glob: str | None = None,
    label_glob: str | None = None,
    modalities: list[str] | None = None,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """List the volumes of a table, or the NIfTI volumes and DICOM series of a folder.

    Args:
        source: folder, or a table as :func:`multiad_med.datasets.find_volumes` reads it.
        image_glob: of volume files in a folder; see :func:`multiad_med.data.find_studies`. It chooses
            DICOM series too, by a path or by SeriesDescription.
        label_glob: of the masks in a folder; see there too.
        modalities: of DICOM series, such as ``[CT]``; none means all.
        kind: ``mr`` or ``ct``, what they will be prepared as; none means either.

    Returns:
        Items as of :func:`find_volumes`; of DICOM, ``subject`` is the patient's identifier and each
        image series is a study.

    Raises:
        DatalistError: when there is neither, a series is of another kind, or a patient has several
            MR sequences; the message has the glob of each.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return find_volumes(path, image_glob=image_glob, label_glob=label_glob)
    items: list[dict[str, Any]] = []
    search = find_series(path)
    if visible_files(path, image_glob):
        found = find_volumes(path, image_glob=image_glob, label_glob=label_glob)
        items = _images(_without_dicom(found, search), path, image_glob, mr=kind != "ct")
    _tell_others(search, path, items)
    series = search.series
    chosen = [s for s in series if modalities is None or s.modality in modalities]
    chosen = _chosen_series(chosen, path, image_glob)
    if not items and not chosen:
        raise _nothing(path, f"file that {matching(image_glob)}", series)
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
    return by_study(items + _dicom_items(chosen, path))


def _folder_items(
    folder: Path,
    *,
    image_glob: str | None,
    label_glob: str | None,
    organ_glob: str | None,
    kind: StudyKind | None,
) -> list[dict[str, Any]]:
    """List every study of a folder; DICOM series of another modality are logged and passed over."""
    items: list[dict[str, Any]] = []
    search = find_series(folder)
    if kind is StudyKind.OCT:
        items += find_bscans(folder, image_glob=image_glob or "**/*")
    elif visible_files(folder, image_glob):
        found = find_studies(
            folder, image_glob=image_glob, label_glob=label_glob, organ_glob=organ_glob
        )
        mr = kind in (None, StudyKind.MR)
        items += _images(_without_dicom(found, search), folder, image_glob, mr=mr)
    _tell_others(search, folder, items)
    series = search.series
    chosen = [s for s in series if kind is None or s.modality == kind.modality]
    for other in series:
        if other not in chosen:
            _logger.warning(
                "series %s (%r) of patient %r passed over: its modality is %s, not %s",
                other.uid,
                other.description,
                other.patient_id,
                other.modality,
                kind and kind.modality,
            )
    if kind is StudyKind.OCT:  # one object is one volume
        items += [
            {"image": str(path), "subject": subject or path.stem}
            for one, subject in zip(chosen, _dicom_subjects(chosen, folder), strict=True)
            for path in one.files
        ]
    else:
        items += _dicom_items(_chosen_series(chosen, folder, image_glob), folder)
    if not items:
        looked_for = "B-scans" if kind is StudyKind.OCT else f"file that {matching(image_glob)}"
        raise _nothing(folder, looked_for, series)
    return items


def load_studies(
    source: str | Path,
    *,
    image_glob: str | None = None,
    label_glob: str | None = None,
    organ_glob: str | None = None,
    kind: StudyKind | str | None = None,
    seed: int = 0,
) -> dict[str, list[dict[str, Any]]]:
    """Return the studies to train on or to infer: a datalist, or a folder of NIfTI, DICOM, or both.

    Args:
        source: datalist, folder with one, prepared slices, any folder of volumes, or one volume,
            for inference. Hidden files and results of inference in a folder are no studies.
        image_glob: of NIfTI in a folder; see :func:`multiad_med.data.find_studies`. It chooses DICOM
            series too, by a path or by SeriesDescription (``*flair*``). With ``kind=oct`` it is of
            volumes and images, see :func:`multiad_med.datasets.find_bscans`.
        label_glob: of lesion masks; with ``kind=oct`` masks need a datalist.
        organ_glob: of organ masks, likewise.
        kind: what the volumes are; DICOM series of another modality are passed over.
        seed: see :func:`multiad_med.data.load_datalist`.

    Raises:
        DatalistError: as of :func:`multiad_med.data.load_datalist`, when the folder holds
            nothing of the kind, or several MR sequences of a patient; the message has the glob of each.
    """
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        raise DatalistError(
            f"{path}: a table is a source of the recipe volumes: prepare slices from it (`multiad "
            f"prepare volumes --source {path} --target slices`), or write a datalist.json. "
            "`multiad predict --ray local` takes a table of paths."
        )
    if path.is_file() and path.suffix.lower() != ".json":
        study = {"image": str(path), "subject": volume_name(path)}
        return train_or_infer([study], seed=seed)
    if path.is_file() or (path / DATALIST_NAME).is_file() or not path.is_dir():
        return load_datalist(path, seed=seed)
    kind = None if kind is None else choose(StudyKind, kind, what="kind")
    if kind is StudyKind.OCT and (label_glob or organ_glob):
        raise DatalistError("Masks of B-scans are named in a datalist.json, not by a glob.")
    items = _folder_items(
        path, image_glob=image_glob, label_glob=label_glob, organ_glob=organ_glob, kind=kind
    )
    return train_or_infer(items, seed=seed)


def __getattr__(name: str) -> Any:  # names that have changed
    return moved_name(__name__, name)
