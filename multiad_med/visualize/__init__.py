"""Images of maps: colours, overlays, contact sheet, and a viewer page."""

from multiad_med.visualize.slice_rows import MontageColumn, save_montage
from multiad_med.visualize.viewed_study import ViewedStudy, ViewError, load_study
from multiad_med.visualize.viewer import view

__all__ = [
    "MontageColumn",
    "ViewError",
    "ViewedStudy",
    "load_study",
    "save_montage",
    "view",
]
