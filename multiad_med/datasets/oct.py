"""OCT volumes of no known data set: files of B-scans, and folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiad_med.data.study_files import subject_of, visible_files
from multiad_med.data.tree import is_volume
from multiad_med.datasets.layout_files import existing_folder, natural_key
from multiad_med.utils.suffixes import is_image

__all__ = ["find_bscans"]

_VOLUMES = (".npy", ".vol", ".e2e")


def find_bscans(source: str | Path, *, image_glob: str = "**/*") -> list[dict[str, Any]]:
    """List the OCT volumes of a folder that are not DICOM.

    A file (:func:`multiad_med.data.tree.is_volume`, ``.npy``, Heidelberg's ``.vol`` and ``.e2e``) is a
    volume; so is a folder of images, each a B-scan, in the natural order of their names.

    Args:
        source: the folder.
        image_glob: pattern of the files and images, relative to it.

    Returns:
        Items with ``image`` (a file, a folder of images or, where the pattern leaves some of them
        out, a list) and ``subject`` (the sub-folder, or else the file's name; of images in
        ``source`` itself, its name), in the order of their paths; none if there are no such files.

    Raises:
        DatalistError: when there is no such folder.
    """
    folder = existing_folder(source)
    items: list[dict[str, Any]] = []
    folders: dict[Path, list[Path]] = {}
    for path in visible_files(folder, image_glob):
        if is_image(path):
            folders.setdefault(path.parent, []).append(path)
        elif is_volume(path) or path.name.lower().endswith(_VOLUMES):
            items.append({"image": str(path), "subject": subject_of(path, folder)})
    for parent, scans in folders.items():
        # The folder of the images is the volume.
        subject = folder.name if parent == folder else subject_of(parent, folder)
        whole = len(scans) == sum(is_image(path) for path in visible_files(parent, "*"))
        images = [str(path) for path in sorted(scans, key=natural_key)]
        items.append({"image": str(parent) if whole else images, "subject": subject})
    return items
