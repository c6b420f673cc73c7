"""BMAD: medical slices as images, arranged for anomaly detection (Bao et al., CVPR-W 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.layout_files import (
    by_study,
    existing_folder,
    first,
    nothing_found,
    study_name,
    walk,
    warn_of_unread,
)
from multiad_med.utils.suffixes import is_image

__all__ = ["find_bmad"]

_CATEGORIES = {
    "brain": r"brain(_ad)?|brats2021_slice",
    "liver": r"liver(_ad)?|hist_diy",
    "resc": r"(retina_)?resc(_ad)?",
    "oct2017": r"(retina_)?oct2017(_ad)?",
    "chest": r"chest(_ad)?|chest-rsna",
    "histopathology": r"histopathology(_ad)?|camelyon16(_256)?",
}
_WITH_MASKS = ("brain", "liver", "resc")
_SPLITS = {
    "train": "training",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_ANOMALOUS = {"good": False, "ungood": True}
_MASK_FOLDERS = ("label", "anomaly_mask", "val_label", "test_label")
_PATIENTS = {
    "brain": r"(\d{5})_\d+",
    "liver": r"(?:img_|liver_)?(\d+)_\d+(?:_hist)?",
    "resc": r"(\d+)_\d+",
    "oct2017": r"[A-Za-z]+-(\d+)-\d+",
    "chest": r"(.+)",
}


def _category(parts: Iterable[str]) -> str | None:
    """Return the category that one of the folder names stands for, the deepest first."""
    for part in parts:
        for category, pattern in _CATEGORIES.items():
            if re.fullmatch(pattern, part, re.IGNORECASE):
                return category
    return None


def _subject(category: str, split: str, stem: str) -> str | None:
    """Return the patient that a file's name carries."""
    match = re.fullmatch(_PATIENTS.get(category, r"(?!)"), stem)
    if match is None:
        return None
    if category == "liver":
        return f"{'btcv' if split == 'training' else 'lits'}-{match.group(1)}"
    if category == "resc":
        return f"{'training' if split == 'training' else 'validation'}set-{match.group(1)}"
    return match.group(1)


def find_bmad(source: str | Path) -> list[dict[str, Any]]:
    """List the slices of BMAD, in every spelling of its folders that is known.

    An image is placed by the names of the folders above it, in whatever case and order: the
    category (``Brain_AD``, ``BraTS2021_slice``, ``hist_DIY``, ``RESC``, ``Retina_RESC``, …), the split
    (``train``, ``valid`` or ``val``, ``test``), ``good`` or ``Ungood``, and ``img`` or a folder of masks
    (``label``, ``anomaly_mask``, ``val_label``, ``test_label``), whose files have their image's name.

    The file names carry the patient:

    - brain ``00753_60.png``: BraTS 2021 patient 00753 and axial slice [its script];
    - liver ``10_432.png``: LiTS volume 10 and slice [its script], subject ``lits-10``; in training BTCV's
      number, subject ``btcv-10`` [our reading of the script's ``img_0001_77_hist.png``];
    - RESC ``9_28.png``: volume 9 and B-scan, numbered anew in either of the challenge's sets; subject
      ``validationset-9`` in validation and test, both cut from the challenge's validation set, and
      ``trainingset-9`` in training [our reading of published names and counts];
    - OCT2017 ``CNV-6294785-1.jpeg``: patient 6294785; chest: one image per patient.

    An image whose name has another form, and every histopathology patch, is a subject of its own.

    Splits are reported as published, and they share patients: liver's validation and test are the
    first slices and the rest of one sorted list of LiTS slices, RESC's are drawn from the same 15
    volumes. A check of splits by subject fails on both, rightly: report such metrics as BMAD's.

    Args:
        source: the folder of all categories, or of one.

    Returns:
        Items with ``image``, ``subject``, ``study`` (``brain/test/ungood/00753_60``), ``split``,
        ``anomalous``, ``category`` ("brain", "liver", "resc", "oct2017", "chest" or
        "histopathology") and, for the anomalous images of the first three where the category has
        masks, ``label``. Every mask value above 0 is lesion: some releases hold shades, not 0 and
        255. The (empty) masks of good images are not listed.

    Raises:
        DatalistError: when nothing matches, an anomalous image of brain, liver or RESC has no
            mask while others have, or an image occurs twice.
    """
    folder = existing_folder(source)
    masks: dict[tuple[str, str, str], Path] = {}
    images: list[tuple[str, str, bool, Path]] = []
    files = walk(folder)
    of_normal: set[Path] = set()
    for path in files:
        if not is_image(path):
            continue
        inside = [part.lower() for part in path.relative_to(folder).parts[-2::-1]]
        category = _category([*inside, folder.name, folder.parent.name])
        split = next((_SPLITS[part] for part in inside if part in _SPLITS), None)
        anomalous = next((_ANOMALOUS[part] for part in inside if part in _ANOMALOUS), None)
        if category is None or split is None or anomalous is None:
            continue
        if any(part in _MASK_FOLDERS for part in inside):
            if anomalous:
                masks[category, split, path.stem] = path
            else:
                of_normal.add(path)
        else:
            images.append((category, split, anomalous, path))
    if not images:
        raise nothing_found(
            folder,
            "BMAD images such as Brain_AD/BraTS2021_slice/train/good/00753_60.png",
            recipe="bmad",
        )
    with_masks = {category for category, _, _ in masks}
    items, bare = [], []
    for category, split, anomalous, path in images:
        study = study_name(category, split, "ungood" if anomalous else "good", path.stem)
        item: dict[str, Any] = {
            "image": str(path),
            "subject": _subject(category, split, path.stem) or study,
            "study": study,
            "split": split,
            "anomalous": anomalous,
            "category": category,
        }
        if anomalous and category in _WITH_MASKS and category in with_masks:
            mask = masks.get((category, split, path.stem))
            if mask is None:
                bare.append(path)
            else:
                item["label"] = str(mask)
        items.append(item)
    if bare:
        raise DatalistError(
            f"{len(bare)} anomalous images have no mask of their name in one of the folders "
            f"{list(_MASK_FOLDERS)}, while others have: {first(bare)}. Unpack the whole release, or "
            "remove all masks."
        )
    # Some releases have masks of chest and OCT2017 images too, which nothing asks for.
    asked = [path for path in files if path not in of_normal and path not in set(masks.values())]
    warn_of_unread(
        folder,
        asked,
        items,
        also="A folder above each must name its category, train, valid or test, and good or Ungood.",
    )
    return by_study(items)
