"""Which study belongs to whom and to which split: datalists, made and checked by subject."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "DATALIST_NAME",
    "DatalistError",
    "common_folder",
    "find_studies",
    "load_datalist",
    "shared_subjects",
    "split_subjects",
]

DATALIST_NAME = "datalist.json"
SECTIONS = ("training", "validation", "test")
_PATH_KEYS = ("image", "label")


class DatalistError(ValueError):
    """A datalist, or the folder it should be made from, cannot be used."""


def _subject(path: Path, folder: Path) -> str:
    """A study's subject: its sub-folder where it has one, otherwise its file name."""
    inside = path.relative_to(folder)
    return (
        inside.parts[0]
        if len(inside.parts) > 1
        else path.name.removesuffix(".gz").removesuffix(".nii")
    )


def find_studies(
    folder: str | Path, *, image_glob: str = "**/*.nii*", label_glob: str | None = None
) -> list[dict[str, str]]:
    """List the volumes of a folder, one item per file.

    Args:
        folder: where to look.
        image_glob: pattern of the images, relative to the folder.
        label_glob: pattern of the lesion masks. Each image then takes the one mask that lies in
            its own folder, or in a folder of its own name.

    Returns:
        Items with ``image``, ``subject`` (the sub-folder, or else the file name) and, with masks,
        ``label``, in the order of their paths.

    Raises:
        DatalistError: when the folder is missing or holds no image, or an image has not exactly
            one mask.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatalistError(f"{folder} is not a folder.")
    labels = sorted(folder.glob(label_glob)) if label_glob else []
    images = [p for p in sorted(folder.glob(image_glob)) if p.is_file() and p not in labels]
    if not images:
        raise DatalistError(f"No file in {folder} matches {image_glob!r}.")
    items = []
    for image in images:
        item = {"image": str(image), "subject": _subject(image, folder)}
        if label_glob:
            own = [label for label in labels if label.parent == image.parent]
            if len(own) != 1:
                raise DatalistError(
                    f"{image} needs exactly one mask {label_glob!r} in its folder, found {len(own)}."
                )
            item["label"] = str(own[0])
        items.append(item)
    return items


def common_folder(items: Sequence[Mapping[str, Any]]) -> str:
    """The deepest folder that holds all studies.

    Results are written under the studies' paths relative to it, so that files of one name in
    different folders do not overwrite each other.

    Args:
        items: of a datalist; without any, the working directory is returned.
    """
    folders = [os.path.dirname(os.path.abspath(item["image"])) for item in items]
    return os.path.commonpath(folders) if folders else os.getcwd()


def split_subjects(
    subjects: Iterable[str], *, validation_fraction: float = 0.2, seed: int = 0
) -> tuple[set[str], set[str]]:
    """Divide subjects into training and validation; the same for the same subjects and seed.

    Args:
        subjects: identifiers; repeated ones count once.
        validation_fraction: part of the subjects for validation, at least one.
        seed: of the shuffle.

    Raises:
        DatalistError: with fewer than two subjects, of whom none could be held out.
    """
    unique = sorted(set(subjects))
    if len(unique) < 2:
        raise DatalistError(
            f"At least two subjects are needed, one of them held out for calibration; got {unique}."
        )
    random.Random(seed).shuffle(unique)
    count = min(len(unique) - 1, max(1, round(validation_fraction * len(unique))))
    return set(unique[count:]), set(unique[:count])


def _check_item(item: Any, section: str, source: Path) -> dict[str, Any]:
    if not isinstance(item, Mapping) or "image" not in item:
        raise DatalistError(f"{source}: an item of {section!r} has no `image`: {item!r}.")
    result = dict(item)
    for key in _PATH_KEYS:
        if key in result:
            path = source.parent / str(result[key])
            if not path.exists():
                raise DatalistError(
                    f"{source}: {key} {path} of section {section!r} does not exist."
                )
            result[key] = str(path)
    result.setdefault("subject", _subject(Path(result["image"]), Path(result["image"]).parent))
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
    and ``test``, each a list of items with ``image`` and, optionally, ``label`` (lesion mask),
    ``subject`` and ``anomalous``; paths are relative to the file. A folder that holds a
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
        if len({item["subject"] for item in items}) < 2:
            return {"training": [], "validation": [], "test": list(items)}
        training, validation = split_subjects(
            (item["subject"] for item in items), validation_fraction=validation_fraction, seed=seed
        )
        return {
            "training": [item for item in items if item["subject"] in training],
            "validation": [item for item in items if item["subject"] in validation],
            "test": list(items),
        }
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
    _check_sections(sections, path)
    return sections
