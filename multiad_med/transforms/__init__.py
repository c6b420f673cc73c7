"""Transforms that MONAI lacks, each as an array and a dictionary form."""

from typing import Any

from multiad_med._moved import moved_name
from multiad_med.transforms.axial_slices import (
    AxialSlices,
    AxialSlicesd,
    NeighbourSlices,
    NeighbourSlicesd,
)
from multiad_med.transforms.bmad import BmadLiver, BmadLiverd
from multiad_med.transforms.brightness import (
    NormaliseBrightness,
    NormaliseBrightnessd,
    RandBrightnessd,
)
from multiad_med.transforms.centre import CentreHounsfield, CentreHounsfieldd
from multiad_med.transforms.check import CheckMaskGridd, CheckVolume, CheckVolumed, VolumeError
from multiad_med.transforms.crop import CropInPlane, CropInPlaned
from multiad_med.transforms.fit import FitInPlane, FitInPlaned
from multiad_med.transforms.foreground import (
    ForegroundByHounsfield,
    ForegroundByHounsfieldd,
    ForegroundByIntensity,
    ForegroundByIntensityd,
    ForegroundByLabel,
    ForegroundByLabeld,
    WholeForeground,
    WholeForegroundd,
    occupied_slices,
)
from multiad_med.transforms.intensity import ScaleForegroundIntensity, ScaleForegroundIntensityd
from multiad_med.transforms.labels import KeepSlicesd, SliceLabels, SliceLabelsd, SliceState
from multiad_med.transforms.nuisance import EXTREMES, LIGHT, Nuisance, NuisanceChange
from multiad_med.transforms.occupancy import MarkOccupiedd, marked_slices
from multiad_med.transforms.plugged import PluggedTransformd
from multiad_med.transforms.pseudo_anomalies import PseudoAnomaly, put_pseudo_anomalies
from multiad_med.transforms.radiological import radiological_view
from multiad_med.transforms.tiles import TILE_OVERLAP, Tiles, Tilesd
from multiad_med.transforms.window import HounsfieldWindow, HounsfieldWindowd, Window

__all__ = [
    "EXTREMES",
    "LIGHT",
    "TILE_OVERLAP",
    "AxialSlices",
    "AxialSlicesd",
    "BmadLiver",
    "BmadLiverd",
    "CentreHounsfield",
    "CentreHounsfieldd",
    "CheckMaskGridd",
    "CheckVolume",
    "CheckVolumed",
    "CropInPlane",
    "CropInPlaned",
    "FitInPlane",
    "FitInPlaned",
    "ForegroundByHounsfield",
    "ForegroundByHounsfieldd",
    "ForegroundByIntensity",
    "ForegroundByIntensityd",
    "ForegroundByLabel",
    "ForegroundByLabeld",
    "HounsfieldWindow",
    "HounsfieldWindowd",
    "KeepSlicesd",
    "MarkOccupiedd",
    "NeighbourSlices",
    "NeighbourSlicesd",
    "NormaliseBrightness",
    "NormaliseBrightnessd",
    "Nuisance",
    "NuisanceChange",
    "PluggedTransformd",
    "PseudoAnomaly",
    "RandBrightnessd",
    "ScaleForegroundIntensity",
    "ScaleForegroundIntensityd",
    "SliceLabels",
    "SliceLabelsd",
    "SliceState",
    "Tiles",
    "Tilesd",
    "VolumeError",
    "WholeForeground",
    "WholeForegroundd",
    "Window",
    "marked_slices",
    "occupied_slices",
    "put_pseudo_anomalies",
    "radiological_view",
]


def __getattr__(name: str) -> Any:  # names that have changed
    return moved_name(__name__, name)
