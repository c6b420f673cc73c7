"""Which study belongs to whom and to which split: datalists, made and checked by subject."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from multiad_med.utils.errors import MultiADError

__all__ = [
    "DATALIST_NAME",
    "DatalistError",
    "find_studies",
    "is_result",
    "load_datalist",
    "shared_subjects",
    "split_subjects",
    "study_root",
    "train_or_infer",
]

DATALIST_NAME = "datalist.json"
STORE_NAME = "store.json"
SECTIONS = ("training", "validation", "test")
PATH_KEYS = ("image", "label", "organ")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PARTS = frozenset(
    [
        "data",
        "images",
        "imagestr",
        "imagests",
        "normal",
        "test",
        "testing",
        "train",
        "training",
        "val",
        "valid",
        "validation",
    ]
)


_RESULT = re.compile(r"_anomaly(_(map|mask)\.nii(\.gz)?|\.json)$|^summary\.(json|csv)$")


class DatalistError(MultiADError, ValueError):
    """A datalist, or the folder it should be made from, cannot be used."""


def subject_of(path: Path, folder: Path) -> str:
    """A study's subject: its sub-folder where it has one, otherwise its file name.

    A sub-folder that names a part of the data, such as ``train`` or ``images``, is nobody.
    """
    folders = [part for part in path.relative_to(folder).parts[:-1] if part.lower() not in _PARTS]
    return folders[0] if folders else path.name.removesuffix(".gz").removesuffix(".nii")


def is_result(path: Path) -> bool:
    """Whether a file's name is one that inference gives its results."""
    return _RESULT.search(path.name) is not None


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder that match a glob, by path; neither hidden ones nor inference's results."""
    return [
        path
        for path in sorted(folder.glob(pattern))
        if path.is_file()
        and not is_result(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _organ(image: Path, organs: Sequence[Path], images: Sequence[Path]) -> Path | None:
    """The organ mask beside an image that begins with its name; of an only image, the only one."""
    beside = [mask for mask in organs if mask.parent == image.parent]
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    own = [mask for mask in beside if mask.name.startswith(name)]
    if not own and sum(other.parent == image.parent for other in images) == 1:
        own = beside
    if len(own) > 1:
        raise DatalistError(
            f"{image} has {len(own)} organ masks in its folder, first {own[0]} and {own[1]}. Set "
            "organ_glob to match one of them."
        )
    return own[0] if own else None


def find_studies(
    folder: str | Path,
    *,
    image_glob: str = "**/*.nii*",
    label_glob: str | None = None,
    organ_glob: str | None = None,
) -> list[dict[str, str]]:
    """List the volumes of a folder, one item per file.

    Hidden files and results of inference (``*_anomaly_map.nii.gz`` and the like) are no volumes.

    Args:
        folder: where to look.
        image_glob: pattern of the images, relative to the folder.
        label_glob: pattern of the lesion masks. Each image then takes the one mask that lies in
            its own folder.
        organ_glob: pattern of the organ masks. An image takes the one in its own folder whose name
            begins with the image's, or, as the folder's only image, the only one there; it may
            have none.

    Returns:
        Items with ``image``, ``subject`` (the sub-folder, or else the file name) and, with masks,
        ``label`` and ``organ``, in the order of their paths.

    Raises:
        DatalistError: when the folder is missing or holds no image, or an image has not exactly
            one lesion mask, or several organ masks.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatalistError(f"{folder} is not a folder.")
    labels = visible_files(folder, label_glob) if label_glob else []
    organs = visible_files(folder, organ_glob) if organ_glob else []
    masks = {*labels, *organs}
    images = [path for path in visible_files(folder, image_glob) if path not in masks]
    if not images:
        raise DatalistError(f"No file in {folder} matches {image_glob!r}.")
    items = []
    for image in images:
        item = {"image": str(image), "subject": subject_of(image, folder)}
        if label_glob:
            own = [label for label in labels if label.parent == image.parent]
            if len(own) != 1:
                raise DatalistError(
                    f"{image} needs exactly one mask {label_glob!r} in its folder, found {len(own)}."
                )
            item["label"] = str(own[0])
        if organ := _organ(image, organs, images):
            item["organ"] = str(organ)
        items.append(item)
    return items


def study_root(items: Sequence[Mapping[str, Any]], source: str | Path) -> str:
    """The folder that the names of studies are relative to, where they are paths in a tree.

    Of MVTec's ``root/screw/test/crack/000.png``, study ``screw/test/crack/000``, it is ``root``,
    whatever part of the tree is looked at.

    Args:
        items: of a datalist.
        source: what is returned where studies have no such names.
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
    """Each subject once, in an order that depends on its own identifier and the seed only."""
    return sorted(set(subjects), key=lambda s: hashlib.sha256(f"{seed}:{s}".encode()).digest())


def split_subjects(
    subjects: Iterable[str], *, validation_fraction: float = 0.2, seed: int = 0
) -> tuple[set[str], set[str]]:
    """Divide subjects into training and validation; the same for the same subjects and seed.

    Args:
        subjects: identifiers; repeated ones count once.
        validation_fraction: part of the subjects for validation, at least one.
        seed: of the ranking.

    Raises:
        DatalistError: with fewer than two subjects, of whom none could be held out.
    """
    unique = rank_subjects(subjects, seed=seed)
    if len(unique) < 2:
        raise DatalistError(
            f"At least two subjects are needed, one of them held out for calibration; got {unique}."
        )
    count = min(len(unique) - 1, max(1, round(validation_fraction * len(unique))))
    return set(unique[count:]), set(unique[:count])


def first_path(item: Mapping[str, Any]) -> str:
    """The path of an item's image, or of the first file of several."""
    image = item["image"]
    return str(image if isinstance(image, (str, os.PathLike)) else image[0])


def _check_item(item: Any, section: str, source: Path) -> dict[str, Any]:
    if not isinstance(item, Mapping) or not item.get("image"):
        raise DatalistError(f"{source}: an item of {section!r} has no `image`: {item!r}.")
    result = dict(item)
    if isinstance(result.get("label"), int):  # a class, as of pictures: 0 is normal
        result.setdefault("anomalous", bool(result.pop("label")))
    # Prepared slices are trained on without the files that they were made from.
    check = not (source.parent / STORE_NAME).is_file()
    for key in PATH_KEYS:
        if key in result:
            one = isinstance(result[key], str)
            paths = [source.parent / str(p) for p in ([result[key]] if one else result[key])]
            for path in paths:
                if check and not path.exists():
                    raise DatalistError(
                        f"{source}: {key} {path} of section {section!r} does not exist."
                    )
            result[key] = str(paths[0]) if one else [str(path) for path in paths]
    image = Path(first_path(result))
    picture = isinstance(result["image"], str) and image.suffix.lower() in PICTURE_SUFFIXES
    # Names of pictures recur from folder to folder.
    own = str(item["image"]) if picture else subject_of(image, image.parent)
    result.setdefault("subject", own)
    return result


def shared_subjects(sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Subjects that are in several sections, each with the names of two of them."""
    owner: dict[str, str] = {}
    clashes = []
    for section, items in sections.items():
        for subject in sorted({str(item["subject"]) for item in items}):
            if owner.setdefault(subject, section) != section:
                clashes.append(f"{subject} ({owner[subject]} and {section})")
    return clashes


def _check_sections(sections: Mapping[str, Sequence[Mapping[str, Any]]], source: Path) -> None:
    clashes = shared_subjects(sections)
    if clashes:
        raise DatalistError(f"{source}: subjects in two splits: {', '.join(clashes[:5])}.")
    for section in ("training", "validation"):
        abnormal = [
            str(item["image"])
            for item in sections.get(section, ())
            if item.get("anomalous") and "label" not in item
        ]
        if abnormal:
            raise DatalistError(
                f"{source}: {len(abnormal)} studies of section {section!r} are marked anomalous and have "
                f"no lesion mask that tells their normal slices, first {abnormal[:3]}. Training and "
                "calibration take normal images only."
            )


def train_or_infer(
    items: Sequence[Mapping[str, Any]], *, validation_fraction: float = 0.2, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Sections of a folder without datalist, of which it is not known what it is for.

    Args:
        items: all studies.
        validation_fraction, seed: see :func:`split_subjects`.

    Returns:
        Training and validation by subject, and every study as ``test``, for inference; with one
        subject only, who could not be held out, nothing but ``test``.
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
    image_glob: str = "**/*.nii*",
    label_glob: str | None = None,
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> dict[str, list[dict[str, Any]]]:
    """Read a datalist, or make one from a folder.

    A datalist is a JSON file in the Medical Decathlon's form: sections ``training``, ``validation``
    and ``test``, each a list of items with ``image`` and, optionally, ``label`` (lesion mask, or 0 for
    normal and 1 for anomalous without a mask), ``subject`` and ``anomalous``; paths are relative to the
    file. A folder that holds a
    ``datalist.json`` means that file. In any other folder every volume is taken as a study, and
    its subjects are divided into training and validation; ``test`` then has every study, for
    inference on a folder.

    Args:
        source: JSON file or folder.
        image_glob, label_glob: see :func:`find_studies`; only for a folder without datalist.
        validation_fraction, seed: see :func:`split_subjects`; only for such a folder.

    Returns:
        The three sections, each item with absolute or caller-relative paths and a ``subject``.

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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatalistError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(content, dict) or not any(section in content for section in SECTIONS):
        raise DatalistError(f"{path} has none of the sections {SECTIONS}.")
    sections = {
        section: [_check_item(item, section, path) for item in content.get(section, [])]
        for section in SECTIONS
    }
    # A store's slices are chosen by their state, and its preparation has checked the sections.
    if not (path.parent / STORE_NAME).is_file():
        _check_sections(sections, path)
    return sections
