"""RESC: OCT volumes of diabetic retinas from the AI Challenger 2018, in its published forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.bmad import find_bmad
from multiad_med.datasets.hints import looks_like
from multiad_med.datasets.layout_files import (
    NothingFoundError,
    by_study,
    case_name,
    existing_folder,
    first,
    nothing_found,
    study_name,
    walk,
    warn_of_unread,
)
from multiad_med.utils.suffixes import NIFTI_SUFFIXES, is_image

__all__ = ["find_resc"]

_PATIENT = re.compile(r"(PC?\d+)_MacularCube.*", re.IGNORECASE)
_SPLITS = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "test": "test",
}
_VOLUMES = (".npy", *NIFTI_SUFFIXES, ".dcm", ".dicom")
_LABEL_NAME = re.compile(r"(.+?)_label(mark)?", re.IGNORECASE)
_LABEL_FOLDERS = ("labels", "label", "label_images")
_PNET_IMAGES = ("images", "normal_images")


def _split(path: Path, folder: Path) -> dict[str, str]:
    """Return the split that a folder above the path names, the nearest first; empty if none does."""
    inside = path.relative_to(folder.parent).parts[:-1]
    for part in reversed(inside):
        name = re.sub(r"^edema_|_?set$", "", part.lower())
        if name in _SPLITS:
            return {"split": _SPLITS[name]}
    return {}


def _subject(volume: str) -> str:
    match = _PATIENT.fullmatch(volume)
    return match.group(1) if match else volume


def _bscans(files: Sequence[Path], marker: tuple[str, ...]) -> dict[Path, list[Path]]:
    """Return the images in ``<marker>/<volume>/`` by the volume's folder, in natural order."""
    volumes: dict[Path, list[Path]] = {}
    for path in files:
        if is_image(path) and path.parent.parent.name.lower() in marker:
            volumes.setdefault(path.parent, []).append(path)
    return volumes


def _challenge_items(files: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    labels = {
        (where.parent.parent, where.name.lower()): {p.stem: p for p in paths}
        for where, paths in _bscans(files, ("label_images",)).items()
    }
    labelled = {root for root, _ in labels}
    items, bare = [], []
    for where, paths in _bscans(files, ("original_images",)).items():
        root, name = where.parent.parent, re.sub(r"\.img$", "", where.name, flags=re.IGNORECASE)
        split = _split(where, folder)
        if labelled and root not in labelled and split.get("split") == "test":
            continue
        numbers = {int(path.stem) for path in paths if path.stem.isdecimal()}
        gaps = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
        if gaps or len(numbers) != len(paths):
            raise DatalistError(
                f"{where} should hold its B-scans as 1.bmp, 2.bmp, … without a gap; "
                f"{f'{first(gaps)} missing' if gaps else 'other names or numbers found twice'}. "
                "Unpack the volume again."
            )
        item: dict[str, Any] = {
            "image": [str(path) for path in paths],
            "subject": _subject(name),
            "study": study_name(name),
            **split,
        }
        if root in labelled:
            masks = labels.get((root, f"{name}_labelMark".lower()), {})
            bare += [path for path in paths if path.stem not in masks]
            item["label"] = [str(masks[path.stem]) for path in paths if path.stem in masks]
        items.append(item)
    if bare:
        raise DatalistError(
            f"{len(bare)} B-scans have no label in label_images/<volume>_labelMark/: {first(bare)}. "
            "Unpack all labels of this set, or remove its label_images."
        )
    return items


def _pnet_items(files: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    masks = {path for paths in _bscans(files, ("lesion_mask",)).values() for path in paths}
    items = []
    for where, paths in _bscans(files, _PNET_IMAGES).items():
        split = _split(where, folder).get("split")
        if split is None:
            continue
        kind = where.parent.name
        anomalous = split != "training" and kind.lower() == "images"
        item: dict[str, Any] = {
            "image": [str(path) for path in paths],
            "subject": _subject(where.name),
            "study": study_name(split, kind, where.name),
            "split": split,
            "anomalous": anomalous,
        }
        if anomalous:
            partners = [where.parent.parent / "lesion_mask" / where.name / p.name for p in paths]
            bare = [p for p in partners if p not in masks]
            if bare and masks:
                raise DatalistError(
                    f"{len(bare)} masks of {where} are missing: {first(bare)}. Unpack all of "
                    "lesion_mask, or remove that folder."
                )
            if masks:
                item["label"] = [str(path) for path in partners]
        items.append(item)
    return items


def _volume_items(files: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    volumes = [path for path in files if path.name.lower().endswith(_VOLUMES)]
    labels: dict[str, Path] = {}
    images = []
    for path in volumes:
        match = _LABEL_NAME.fullmatch(case_name(path))
        if match or path.parent.name.lower() in _LABEL_FOLDERS:
            labels[match.group(1) if match else case_name(path)] = path
        else:
            images.append(path)
    items = []
    for path in images:
        name = case_name(path)
        item = {
            "image": str(path),
            "subject": _subject(name),
            "study": study_name(name),
            **_split(path, folder),
        }
        if name in labels:
            item["label"] = str(labels[name])
        items.append(item)
    bare = [item["image"] for item in items if "label" not in item]
    if labels and bare:
        raise DatalistError(
            f"{len(bare)} of {len(items)} volumes have no label, while others have: {first(bare)}. "
            "Name it <volume>_label or put it into labels/ under the volume's name."
        )
    return items


def find_resc(source: str | Path, *, unlabelled: str = "anomalous") -> list[dict[str, Any]]:
    """List the OCT volumes of RESC.

    Four forms are read, the first that is there:

    - The challenge's own [names as in public readers of it]:
      ``Edema_trainingset/original_images/<volume>.img/1.bmp`` and
      ``label_images/<volume>_labelMark/1.bmp``, likewise ``Edema_validationset`` and
      ``Edema_testset``; 128 B-scans of 512 x 1024 pixels per volume. Grey values of the labels: 128
      PED, 191 SRF, 255 REA (retinal oedema area). A test set without labels is left out. A
      volume's name begins with its patient, of whom there can be several volumes:
      ``P1830_MacularCube512x128_3-24-2016_9-32-54_OD_sn79873_cube_z`` has subject ``P1830`` [our
      reading of the names].
    - P-Net's [folders as in its public loader]: ``train/images/<volume>``, normal B-scans only;
      ``test/images/<volume>`` with ``test/lesion_mask/<volume>``; ``test/normal_images/<volume>``.
      A volume of both test folders makes two studies of one subject.
    - Volumes in one file each (``.npy``, NIfTI, multi-frame DICOM), with an optional partner
      ``<volume>_label`` or ``labels/<volume>`` [our convention].
    - BMAD's slices: see :func:`multiad_med.datasets.bmad.find_bmad`; an item is one B-scan.

    Args:
        source: folder of the release, or above it.
        unlabelled: what volumes without labels are, where the form does not say: ``anomalous``, as
            all of RESC's patients are, or ``normal``, for healthy eyes of your own.

    Returns:
        Items with ``image`` (a list of B-scans in numeric order, or a path), ``label`` (the same
        form, where there are labels), ``subject``, ``study``, ``split`` where folders name it, and
        ``anomalous`` in P-Net's and BMAD's forms. In labels every value above 0 is lesion. The
        challenge's training volumes have lesions; P-Net and BMAD take their normal B-scans for
        training, and the challenge's validation set for their test.

    Raises:
        DatalistError: when no form matches, B-scans or labels are missing, or a volume occurs
            twice.
    """
    if unlabelled not in ("anomalous", "normal"):
        raise DatalistError(f"unlabelled is 'anomalous' or 'normal', got {unlabelled!r}.")
    folder = existing_folder(source)
    files = walk(folder)
    hint = looks_like(path.relative_to(folder).as_posix() for path in files)
    forms = [_challenge_items, _pnet_items]
    if hint in (None, "volumes"):
        forms.append(_volume_items)
    for list_items in forms:
        if items := list_items(files, folder):
            for item in items:
                if "label" not in item and unlabelled == "anomalous":
                    item.setdefault("anomalous", True)
            warn_of_unread(
                folder,
                files,
                items,
                also="They are in none of the folders of RESC's form, or in a test set without labels.",
            )
            return by_study(items)
    try:
        slices = [item for item in find_bmad(folder) if item["category"] == "resc"]
    except NothingFoundError:
        slices = []
    if not slices:
        raise nothing_found(
            folder, "RESC volumes such as original_images/<volume>.img/1.bmp", recipe="resc"
        )
    return slices
