"""NIfTI files, written fast."""

from __future__ import annotations

import os

import nibabel as nib
from isal import igzip

__all__ = ["save_nifti"]

_LEVEL = 1  # as small as zlib's level 1, which nibabel takes, in a fifth of its time


def save_nifti(image: nib.Nifti1Image, path: str | os.PathLike[str]) -> None:
    """Write an image; the same image gives the same bytes.

    Args:
        image: in one file.
        path: ending in ``.nii.gz``, or in another name that ``nibabel.save`` knows.
    """
    if not str(path).endswith(".nii.gz"):
        nib.save(image, path)
        return
    with open(path, "wb") as file, igzip.IGzipFile("", "wb", _LEVEL, file, mtime=0) as compressed:
        image.to_stream(compressed)
