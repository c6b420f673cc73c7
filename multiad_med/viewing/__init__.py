"""A study under its anomaly map: a montage, and one HTML page that a browser opens without a network."""

from multiad_med.viewing.command import view
from multiad_med.viewing.study import ViewedStudy, ViewError, load_study

__all__ = ["ViewError", "ViewedStudy", "load_study", "view"]
