"""Liver CT: LiTS with its lesion marks, BTCV (Synapse) with its organs, and both together."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.layout_files import (
    by_study,
    case_name,
    existing_folder,
    first,
    nothing_found,
    study_name,
    sub_folders,
    walk,
)
from multiad_med.utils.suffixes import is_nifti

__all__ = ["find_btcv", "find_lits", "find_liver"]

_logger = logging.getLogger(__name__)

_LITS = re.compile(
    r"(?P<test>test-)?(?P<part>volume|segmentation)-(?P<number>\d+)\.nii(\.gz)?", re.I
)
_DECATHLON = re.compile(r"liver_(?P<number>\d+)\.nii(\.gz)?", re.I)
_DECATHLON_PARTS = {"imagestr": "volume", "labelstr": "segmentation", "imagests": "test"}
_BTCV_IMAGE = re.compile(r"img(\d{4})(_0000)?|DET(\d+)_avg|(?:ABD|BTCV)_?(\d+)_0000", re.I)
_BTCV_LABEL = re.compile(r"label(\d{4})|DET(\d+)_avg_seg", re.I)
_BTCV_LABELS_TR = re.compile(r"(?:img|label)(\d{4})|(?:ABD|BTCV)_?(\d+)", re.I)
_TEST_FOLDER = re.compile(r"test(ing)?|imagests|averaged-testing(-images)?", re.I)
_BTCV_FOLDERS = ("btcv", "altas", "atlas", "abdomen")
_LITS_FOLDERS = ("lits", "task03_liver")


def _warn_on_bare(bare: list[Path], count: int, mask: str) -> None:
    if bare:
        _logger.warning(
            "%d of %d volumes have no %s: %s. They are listed without; recipes that need masks leave "
            "them out.",
            len(bare),
            count,
            mask,
            first(bare),
        )


def _lits_part(path: Path) -> tuple[str, int] | None:
    """Return what a file is, "volume", "segmentation" or "test", and its number."""
    if match := _LITS.fullmatch(path.name):
        return ("test" if match["test"] else match["part"].lower()), int(match["number"])
    match = _DECATHLON.fullmatch(path.name)
    part = _DECATHLON_PARTS.get(path.parent.name.lower())
    return (part, int(match["number"])) if match and part else None


def find_lits(source: str | Path) -> list[dict[str, Any]]:
    """List the volumes of LiTS: ``volume-0.nii`` and ``segmentation-0.nii``, in any folders.

    The Medical Decathlon's edition (``imagesTr/liver_0.nii.gz``, ``labelsTr``) is read too.

    Args:
        source: folder of the release, or above it.

    Returns:
        Items with ``image``, ``label`` and ``organ`` (one file: 1 liver, 2 lesion), ``subject`` and
        ``study``; a volume whose segmentation is missing has no masks, with a warning. The
        challenge's ``test-volume-*`` come without masks in split ``test``. Some volumes
        hold no lesion, which only their mask tells: no item says ``anomalous``.

    Raises:
        DatalistError: when nothing matches, or a volume or segmentation occurs twice.
    """
    folder = existing_folder(source)
    parts: dict[str, dict[int, Path]] = {"volume": {}, "segmentation": {}, "test": {}}
    for path in walk(folder):
        if found := _lits_part(path):
            part, number = found
            other = parts[part].setdefault(number, path)
            if other is not path:
                raise DatalistError(
                    f"LiTS {part} {number} was found twice: {other} and {path}. Remove one of them."
                )
    if not parts["volume"] and not parts["test"]:
        raise nothing_found(folder, "LiTS volumes such as volume-0.nii", recipe="lits")
    bare = [path for number, path in parts["volume"].items() if number not in parts["segmentation"]]
    _warn_on_bare(bare, len(parts["volume"]), "segmentation-<number>.nii")
    items = []
    for number, path in sorted(parts["volume"].items()):
        name = f"volume-{number}"
        item = {"image": str(path), "subject": name, "study": name}
        if mask := parts["segmentation"].get(number):
            item |= {"label": str(mask), "organ": str(mask)}
        items.append(item)
    for number, path in sorted(parts["test"].items()):
        name = f"test-volume-{number}"
        items.append({"image": str(path), "subject": name, "study": name, "split": "test"})
    return items


def _btcv_case(path: Path) -> tuple[bool, str] | None:
    """Return whether a file is an organ mask, and its case's number."""
    name, parent = case_name(path), path.parent.name.lower()
    if parent in ("labelstr", "labelsts"):
        masks = _BTCV_LABELS_TR
    else:
        masks = _BTCV_LABEL
        if parent in ("imagestr", "imagests") and (match := _BTCV_LABELS_TR.fullmatch(name)):
            return False, next(group for group in match.groups() if group)
    if match := masks.fullmatch(name):
        return True, next(group for group in match.groups() if group)
    if match := _BTCV_IMAGE.fullmatch(name):
        return False, next(g for g in (match.group(1), match.group(3), match.group(4)) if g)
    return None


def find_btcv(source: str | Path) -> list[dict[str, Any]]:
    """List the abdominal CTs of BTCV ("Beyond the Cranial Vault", Synapse).

    Read are ``Training/img/img0001.nii.gz`` with ``Training/label/label0001.nii.gz``,
    ``averaged-training-images/DET0000101_avg.nii.gz`` with
    ``averaged-training-labels/DET0000101_avg_seg.nii.gz``, and ``imagesTr`` with ``labelsTr`` in the
    Decathlon's (``img0001``, ``label0001``) and nnU-Net's (``ABD_001_0000``, ``ABD_001``) names.

    Args:
        source: folder of the release, or above it.

    Returns:
        Items with ``image``, ``organ`` (6 is liver), ``subject`` and ``study``. Volumes of a test
        folder come without organs in split ``test``; others without organs get a warning. BTCV marks
        no lesions: there is no ``label``.

    Raises:
        DatalistError: when nothing matches, or a volume or mask occurs twice.
    """
    folder = existing_folder(source)
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in walk(folder):
        if is_nifti(path) and (found := _btcv_case(path)):
            is_mask, case = found
            other = (masks if is_mask else images).setdefault(case, path)
            if other is not path:
                raise DatalistError(
                    f"BTCV case {case} was found twice: {other} and {path}. Give the folder of "
                    "one copy."
                )
    if not images:
        raise nothing_found(
            folder,
            "BTCV volumes such as img/img0001.nii.gz with label/label0001.nii.gz",
            recipe="btcv",
        )
    items, bare = [], []
    for case, path in images.items():
        name = case_name(path).removesuffix("_0000").removesuffix("_avg")
        item = {"image": str(path), "subject": name, "study": study_name(name)}
        if case in masks:
            item["organ"] = str(masks[case])
        elif any(map(_TEST_FOLDER.fullmatch, path.relative_to(folder.parent).parts[:-1])):
            item["split"] = "test"
        else:
            bare.append(path)
        items.append(item)
    masks_of = "organ mask (label0001.nii.gz, …_avg_seg.nii.gz or labelsTr/)"
    _warn_on_bare(bare, len(items), masks_of)
    return by_study(items)


def _part_folder(folder: Path, given: str | None, names: tuple[str, ...], option: str) -> Path:
    if given is not None:
        return existing_folder(folder / given)
    found = [p for p in sub_folders(folder) if any(name in p.name.lower() for name in names)]
    if not found:
        looked_for = f"sub-folder with one of {list(names)} in its name"
        raise nothing_found(
            folder, f"{looked_for} (`{option}` names it otherwise)", recipe="liver_ct"
        )
    if len(found) > 1:
        raise DatalistError(
            f"{folder} has several sub-folders with one of {list(names)} in their names: "
            f"{first(path.name for path in found)}. Choose one with `{option}`."
        )
    return found[0]


def find_liver(
    source: str | Path, *, btcv: str | None = None, lits: str | None = None
) -> list[dict[str, Any]]:
    """List BTCV for training and LiTS for test: the two data sets of liver anomaly detection.

    BMAD arranged them this way; see :mod:`multiad_med.datasets.bmad`. Volumes without the masks
    that this needs (BTCV's and the LiTS challenge's own test volumes) are left out.

    Args:
        source: folder with both data sets, each in a sub-folder.
        btcv: BTCV's sub-folder, relative to ``source`` or absolute. Without it, the one whose name
            holds ``btcv``, ``altas``, ``atlas`` or ``abdomen``, in whatever case.
        lits: LiTS's sub-folder, likewise. Without it, the one whose name holds ``lits`` or
            ``task03_liver``.

    Returns:
        Items as of :func:`find_btcv` in split ``training`` and of :func:`find_lits` in split
        ``test``; subjects and studies begin with ``btcv-`` or ``lits-``. ``organ_labels`` are the
        values of the liver: 6 in BTCV, 1 and 2 in LiTS, where 2 is lesion; BTCV marks none.

    Raises:
        DatalistError: when a sub-folder is not found, or as of the two functions.
    """
    folder = existing_folder(source)
    parts = (
        ("btcv", "training", [6], find_btcv(_part_folder(folder, btcv, _BTCV_FOLDERS, "btcv"))),
        ("lits", "test", [1, 2], find_lits(_part_folder(folder, lits, _LITS_FOLDERS, "lits"))),
    )
    return [
        {
            **item,
            "subject": f"{prefix}-{item['subject']}",
            "study": f"{prefix}-{item['study']}",
            "split": split,
            "organ_labels": liver,
        }
        for prefix, split, liver, items in parts
        for item in items
        if "organ" in item
    ]
