"""Readers of volumes and images; what cannot be read is refused with a reason."""

from multiad_med.readers.archives import ArchiveError, unpack
from multiad_med.readers.bscans import LoadBScans, LoadBScansd, OctError
from multiad_med.readers.images import (
    ImageError,
    LoadImageMasks,
    LoadImageMasksd,
    LoadImages,
    LoadImagesd,
)
from multiad_med.readers.load_volume import LoadVolume, LoadVolumed
from multiad_med.readers.nifti import NiftiError, NiftiReader

__all__ = [
    "ArchiveError",
    "ImageError",
    "LoadBScans",
    "LoadBScansd",
    "LoadImageMasks",
    "LoadImageMasksd",
    "LoadImages",
    "LoadImagesd",
    "LoadVolume",
    "LoadVolumed",
    "NiftiError",
    "NiftiReader",
    "OctError",
    "unpack",
]
