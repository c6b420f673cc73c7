"""Datalists: which study is of which subject and in which split, made and checked by subject."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from multiad_med.data.study_files import DatalistError, find_studies, subjects_of
from multiad_med.data.tree import volume_name
from multiad_med.utils.suffixes import is_image

__all__ = [
    "DATALIST_NAME",
    "DatalistError",
    "find_studies",
    "load_datalist",
    "shared_subjects",
    "split_subjects",
    "study_root",
    "train_or_infer",
]

DATALIST_NAME = "datalist.json"
CACHE_NAME = "cache.json"
SPLITS = ("training", "validation", "test")
PATH_KEYS = ("image", "label", "organ")


def study_root(items: Sequence[Mapping[str, Any]], source: str | Path) -> str:
    """Return the folder that the names of studies are relative to, where they are paths in a tree.

    For MVTec's ``root/screw/test/crack/000.png``, study ``screw/test/crack/000``, it is ``root``,
    whichever folder of the tree was given.

    Args:
        items: of a datalist.
        source: returned where studies have no such names.
    """
    roots = set()
    for item in items:
        path = Path(os.path.abspath(first_path(item))).with_suffix("")
        depth = len(PurePosixPath(str(item.get("study", ""))).parts)
        if not 0 < depth < len(path.parts):
            return str(source)
        roots.add(str(path.parents[depth - 1]))
    return roots.pop() if len(roots) == 1 else str(source)


def rank_subjects(subjects: Iterable[str], *, seed: int) -> list[str]:
    """Return each subject once, in an order that depends on its own identifier and the seed only."""
    return sorted(set(subjects), key=lambda s: hashlib.sha256(f"{seed}:{s}".encode()).digest())


def split_subjects(
    subjects: Iterable[str], *, validation_fraction: float = 0.2, seed: int = 0
) -> tuple[set[str], set[str]]:
    """Divide subjects into training and validation, always alike for the same subjects and seed.

    Args:
        subjects: identifiers; repeated ones count once.
        validation_fraction: part of the subjects for validation, at least one.
        seed: of the ranking.

    Raises:
        DatalistError: with fewer than two subjects, since none could be held out.
    """
    unique = rank_subjects(subjects, seed=seed)
    if len(unique) < 2:
        raise DatalistError(
            f"At least two subjects are needed, one of them held out for calibration; got {unique}."
        )
    count = min(len(unique) - 1, max(1, round(validation_fraction * len(unique))))
    return set(unique[count:]), set(unique[:count])


def first_path(item: Mapping[str, Any]) -> str:
    """Return the path of an item's image, or of the first file of several."""
    image = item["image"]
    return str(image if isinstance(image, (str, os.PathLike)) else image[0])


def _paths(value: Any, key: str, where: str, source: Path) -> list[Path]:
    """Return the files that an item names under a key.

    Raises:
        DatalistError: when the value is no path and no list of paths.
    """
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        hint = ""
        if key == "label" and isinstance(value, int):
            hint = (
                " A class is no mask: mark a study without mask by `anomalous`, true or false, and "
                "leave `label` out."
            )
        raise DatalistError(
            f"{where}: `{key}` must be the path of a file, or a list of paths, got {value!r}.{hint}"
        )
    return [source.parent / name for name in names]


def _check_item(item: Any, split: str, source: Path) -> dict[str, Any]:
    # The Decathlon lists its test images as bare paths.
    item = {"image": item} if isinstance(item, str) else item
    where = f"{source}, split {split!r}"
    if not isinstance(item, Mapping) or not item.get("image"):
        raise DatalistError(f"{where}: an item has no `image`: {item!r}.")
    result = {key: value for key, value in item.items() if value is not None}
    if result.get("anomalous", False) not in (True, False):
        raise DatalistError(
            f"{where}: `anomalous` of {item['image']} must be true or false, got {item['anomalous']!r}."
        )
    if result.get("label") in (0, 1) and isinstance(result["label"], int):  # a class: 0 is normal
        result.setdefault("anomalous", bool(result.pop("label")))
    # Prepared slices do not need the files that they were made from.
    check = not (source.parent / CACHE_NAME).is_file()
    for key in PATH_KEYS:
        if key in result:
            paths = _paths(result[key], key, where, source)
            for path in paths:
                if check and not path.exists():
                    raise DatalistError(
                        f"{source}: {key} {path} of split {split!r} does not exist."
                    )
            one = isinstance(result[key], str)
            result[key] = str(paths[0]) if one else [str(path) for path in paths]
    image = result["image"]
    if isinstance(image, str) and is_image(Path(image)):
        # Names of images recur from folder to folder.
        result.setdefault("subject", str(item["image"]))
    return result


def _name_subjects(items: Sequence[dict[str, Any]]) -> None:
    """Name the subject of each item that has none after its file.

    Where files of one name lie in several folders, as in ``a/T1.nii`` and ``b/T1.nii``, the folder is
    the subject, as in a folder without datalist.
    """
    bare = [item for item in items if "subject" not in item]
    paths = [Path(os.path.abspath(first_path(item))) for item in bare]
    names = Counter(volume_name(path) for path in dict.fromkeys(paths))
    if all(count == 1 for count in names.values()):
        subjects = [volume_name(path) for path in paths]
    else:
        folder = Path(os.path.commonpath([path.parent for path in paths]))
        subjects = subjects_of(paths, folder)
    for item, subject in zip(bare, subjects, strict=True):
        item["subject"] = subject


def shared_subjects(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return subjects that are in several splits, each with the names of two of them."""
    owner: dict[str, str] = {}
    clashes = []
    for split, items in splits.items():
        for subject in sorted({str(item["subject"]) for item in items}):
            if owner.setdefault(subject, split) != split:
                clashes.append(f"{subject} ({owner[subject]} and {split})")
    return clashes


def _check_splits(splits: Mapping[str, Sequence[Mapping[str, Any]]], source: Path) -> None:
    clashes = shared_subjects(splits)
    if clashes:
        raise DatalistError(f"{source}: subjects in two splits: {', '.join(clashes[:5])}.")
    for split in ("training", "validation"):
        abnormal = [
            str(item["image"])
            for item in splits.get(split, ())
            if item.get("anomalous") and "label" not in item
        ]
        if abnormal:
            raise DatalistError(
                f"{source}: {len(abnormal)} studies of split {split!r} are marked anomalous and have "
                f"no lesion mask that tells their normal slices, first {abnormal[:3]}. Training and "
                "calibration take normal images only."
            )


def train_or_infer(
    items: Sequence[Mapping[str, Any]], *, validation_fraction: float = 0.2, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Divide the studies of a folder for training, and list them all for inference.

    Args:
        items: all studies.
        validation_fraction: see :func:`split_subjects`.
        seed: see :func:`split_subjects`.

    Returns:
        Training and validation by subject, and every study as ``test``. With a single subject, who
        cannot be held out, only ``test``.
    """
    studies = [dict(item) for item in items]
    if len({item["subject"] for item in studies}) < 2:
        return {"training": [], "validation": [], "test": studies}
    training, validation = split_subjects(
        (item["subject"] for item in studies), validation_fraction=validation_fraction, seed=seed
    )
    return {
        "training": [item for item in studies if item["subject"] in training],
        "validation": [item for item in studies if item["subject"] in validation],
        "test": studies,
    }


def load_datalist(
    source: str | Path,
    *,
    image_glob: str | None = None,
    label_glob: str | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> dict[str, list[dict[str, Any]]]:
    """Read a datalist, or make one from a folder.

    A datalist is a JSON file in the Medical Decathlon's form: splits ``training``, ``validation``
    and ``test``, each a list of items with ``image`` and, optionally, ``label`` (lesion mask, or 0 for
    normal and 1 for anomalous without a mask), ``subject`` and ``anomalous``. Paths are relative to the
    file; null means not given. The subject of an item without ``subject`` is its file's name, or its
    folder's where files in several folders have one name; that of an image file is its path.

    A folder with a ``datalist.json`` means that file. In any other folder every volume is a study, and
    its subjects are divided into training and validation; ``test`` has every study, for inference.

    Args:
        source: JSON file or folder.
        image_glob: see :func:`find_studies`; only for a folder without datalist.
        label_glob: see :func:`find_studies`; only for a folder without datalist.
        validation_fraction: see :func:`split_subjects`; only for such a folder.
        seed: see :func:`split_subjects`; only for such a folder.

    Returns:
        The three splits, each item with absolute or caller-relative paths and a ``subject``.

    Raises:
        DatalistError: when the source cannot be read, a file is missing, a subject is in two
            splits, or training or validation has anomalous studies without a lesion mask; the
            message names the first offenders.
    """
    path = Path(source)
    if path.is_dir() and (path / DATALIST_NAME).is_file():
        path = path / DATALIST_NAME
    if not path.is_file():
        items = find_studies(path, image_glob=image_glob, label_glob=label_glob)
        return train_or_infer(items, validation_fraction=validation_fraction, seed=seed)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatalistError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(content, dict) or not any(split in content for split in SPLITS):
        raise DatalistError(f"{path} has none of the splits {SPLITS}.")
    splits = {
        split: [_check_item(item, split, path) for item in content.get(split, [])]
        for split in SPLITS
    }
    _name_subjects([item for items in splits.values() for item in items])
    # A cache's slices are chosen by their state, and its preparation has checked the splits.
    if not (path.parent / CACHE_NAME).is_file():
        _check_splits(splits, path)
    return splits
