"""Transforms that MONAI lacks, each as an array and a dictionary form."""

from multiad_med.transforms.check import CheckMaskGridd, CheckVolume, CheckVolumed, VolumeError
from multiad_med.transforms.fit import FitInPlane, FitInPlaned
from multiad_med.transforms.foreground import (
    ForegroundByIntensity,
    ForegroundByIntensityd,
    occupied_slices,
)
from multiad_med.transforms.intensity import ScaleForegroundIntensity, ScaleForegroundIntensityd

__all__ = [
    "CheckMaskGridd",
    "CheckVolume",
    "CheckVolumed",
    "FitInPlane",
    "FitInPlaned",
    "ForegroundByIntensity",
    "ForegroundByIntensityd",
    "ScaleForegroundIntensity",
    "ScaleForegroundIntensityd",
    "VolumeError",
    "occupied_slices",
]
