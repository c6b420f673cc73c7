"""Datalists, patient splits, and the data sets made from them."""

from multiad_med.data.datalist import (
    DATALIST_NAME,
    DatalistError,
    common_folder,
    find_studies,
    load_datalist,
    split_subjects,
)
from multiad_med.data.errors import StudyError, study_errors
from multiad_med.data.slices import SliceDataset
from multiad_med.data.studies import StudyDataset

__all__ = [
    "DATALIST_NAME",
    "DatalistError",
    "SliceDataset",
    "StudyDataset",
    "StudyError",
    "common_folder",
    "find_studies",
    "load_datalist",
    "split_subjects",
    "study_errors",
]
