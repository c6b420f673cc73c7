"""What files are by their suffixes, in any case."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "ITK_SUFFIXES",
    "NIFTI_PAIR_SUFFIXES",
    "NIFTI_SUFFIXES",
    "is_image",
    "is_nifti",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
NIFTI_PAIR_SUFFIXES = (".img", ".img.gz", ".hdr", ".hdr.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def is_image(path: Path) -> bool:
    """Return whether a file is PNG, JPEG, BMP or TIFF by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_nifti(path: Path) -> bool:
    """Return whether a file is a single-file NIfTI by its name."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)
