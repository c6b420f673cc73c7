"""The volumes of a folder as studies, and whose each is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from multiad_med.data.tree import is_volume, matches, volume_name, walk
from multiad_med.utils.errors import MultiADError

__all__ = [
    "DatalistError",
    "find_studies",
    "is_result",
    "matching",
    "subject_folder",
    "subject_of",
    "subjects_of",
    "visible_files",
]

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
_RESULT = re.compile(
    r"_anomaly(_(map|mask)\.nii(\.gz)?|\.json|\.png|_viewer\.html)$|^summary\.(json|csv|html)$"
)


class DatalistError(MultiADError, ValueError):
    """A datalist, or the folder it should be made from, cannot be used."""


def subject_folder(path: Path, folder: Path) -> str:
    """Return the sub-folder that is a study's subject; empty where there is none.

    A sub-folder that names a part of the data, such as ``train`` or ``images``, is no subject.
    """
    folders = [part for part in path.relative_to(folder).parts[:-1] if part.lower() not in _PARTS]
    return folders[0] if folders else ""


def subject_of(path: Path, folder: Path) -> str:
    """Return a study's subject: its sub-folder where it has one, otherwise its file name."""
    return subject_folder(path, folder) or volume_name(path)


def subjects_of(paths: Sequence[Path], folder: Path) -> list[str]:
    """Return each study's subject, see :func:`subject_of`; files of one name in two folders are two.

    For ``train/001.nii`` and ``test/001.nii`` the subjects are ``train/001`` and ``test/001``.
    """
    bare = [path for path in paths if not subject_folder(path, folder)]
    names = Counter(name for name, _ in {(volume_name(path), path.parent) for path in bare})

    def subject(path: Path) -> str:
        own, name = subject_folder(path, folder), volume_name(path)
        if own or names[name] == 1:
            return own or name
        return (path.parent.relative_to(folder) / name).as_posix()

    return [subject(path) for path in paths]


def is_result(path: Path) -> bool:
    """Tell whether a file's name is one that inference gives its results."""
    return _RESULT.search(path.name) is not None


def visible_files(folder: Path, pattern: str | None) -> list[Path]:
    """Return the files below a folder that match a glob, by path, without hidden files and results.

    Links are followed; one that leads nowhere is listed, so that reading it fails with a message.
    Without a pattern, all volumes match, see :func:`multiad_med.data.tree.is_volume`.
    """

    def wanted(path: Path) -> bool:
        if pattern is None:
            return is_volume(path)
        return matches(path.relative_to(folder), pattern)

    return sorted(path for path in walk(folder) if not is_result(path) and wanted(path))


def matching(image_glob: str | None) -> str:
    """Return what was looked for, in words for a message."""
    return "is a volume by its name" if image_glob is None else f"matches {image_glob!r}"


def _organ(image: Path, organs: Sequence[Path], images: Sequence[Path]) -> Path | None:
    """Return the organ mask in an image's folder that has its name; a single image takes the only one."""
    beside = [mask for mask in organs if mask.parent == image.parent]
    name = volume_name(image)
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
    image_glob: str | None = None,
    label_glob: str | None = None,
    organ_glob: str | None = None,
) -> list[dict[str, str]]:
    """List the volumes of a folder, one item per file.

    Hidden files and results of inference (``*_anomaly_map.nii.gz`` and the like) are no volumes.

    Args:
        folder: where to look.
        image_glob: pattern of the images, relative to the folder; none means every volume (NIfTI,
            MetaImage, NRRD, see :func:`multiad_med.data.tree.is_volume`). Links are followed.
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
        raise DatalistError(f"No file in {folder} {matching(image_glob)}.")
    items = []
    for image, subject in zip(images, subjects_of(images, folder), strict=True):
        item = {"image": str(image), "subject": subject}
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
