"""Whether a folder can be of a domain at all: checked before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from multiad_med.utils.errors import InputError
from multiad_med.utils.suffixes import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
)

__all__ = ["check_data"]

_VOLUMES = (*NIFTI_SUFFIXES, *DICOM_SUFFIXES, *ITK_SUFFIXES)
_LISTS = ("datalist.json", "cache.json")
_BESIDE = (".txt", ".md", ".csv", ".tsv", ".json", ".pdf", ".html", ".xml", ".log", ".db")


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of the files below a folder, without hidden ones."""
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from sorted(name for name in files if not name.startswith("."))


def check_data(source: Path, domain: str) -> None:
    """Refuse what is not there, an empty folder, images for volumes, and volumes for images.

    Whatever may fit passes; the readers check further.

    Args:
        source: a folder or a file.
        domain: of the model.

    Raises:
        InputError: saying what is there and which domain takes it.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist. Give a folder of studies, or a file.")
    if source.is_dir() and any((source / name).is_file() for name in _LISTS):
        return
    of_images = domain in ("industrial", "generalist")
    wrong = _VOLUMES if of_images else () if domain == "retina_oct" else IMAGE_SUFFIXES
    other = ""
    for name in _names(source) if source.is_dir() else [source.name]:
        lower = name.lower()
        if not lower.endswith((*wrong, *_BESIDE)):
            return
        other = other or (name if lower.endswith(wrong) else "")
    if not other and source.is_file():
        return
    if not other:
        raise InputError(f"{source} holds no studies. Put them there, or give another folder.")
    if of_images:
        hint = (
            " One model for several kinds is trained on their prepared slices (`multiad prepare` each) "
            "and maps volumes by the bundle that reads them (--bundle multiad_brain_mri)."
        )
        raise InputError(
            f"{source} holds volumes, such as {other}; the domain {domain} takes images (PNG, JPEG, "
            "BMP, TIFF). For volumes there are the domains brain_mri, liver_ct and retina_oct."
            + (hint if domain == "generalist" else "")
        )
    raise InputError(
        f"{source} holds images, such as {other}; the domain {domain} takes volumes (NIfTI or DICOM). "
        "For images there are the domains industrial and, for B-scans, retina_oct."
    )
