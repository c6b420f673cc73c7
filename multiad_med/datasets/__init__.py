"""Layouts of public data sets: from a folder as published to a list of studies.

They look at names of files and folders and at small tables, and open no image. Every item has
``image`` (an absolute path, or a list of them: sequences as channels, B-scans of one volume),
``subject`` and ``study``; ``label``, ``organ``, ``split``, ``anomalous``, ``category`` and ``kind``
only where the layout gives them.
"""

from multiad_med.datasets.bmad import find_bmad
from multiad_med.datasets.brats import MrSequence, find_brats
from multiad_med.datasets.class_folders import find_classes
from multiad_med.datasets.liver import find_btcv, find_lits, find_liver
from multiad_med.datasets.mvtec import find_mvtec, loco_saturation
from multiad_med.datasets.oct import find_bscans
from multiad_med.datasets.plain_images import find_images
from multiad_med.datasets.real_iad import find_real_iad
from multiad_med.datasets.recognise import Finding, recognise
from multiad_med.datasets.resc import find_resc
from multiad_med.datasets.visa import find_visa
from multiad_med.datasets.volumes import find_volumes

__all__ = [
    "Finding",
    "MrSequence",
    "find_bmad",
    "find_brats",
    "find_bscans",
    "find_btcv",
    "find_classes",
    "find_images",
    "find_lits",
    "find_liver",
    "find_mvtec",
    "find_real_iad",
    "find_resc",
    "find_visa",
    "find_volumes",
    "loco_saturation",
    "recognise",
]
