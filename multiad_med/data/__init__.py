"""Datalists, patient splits, and the data sets made from them."""

from multiad_med.data.datalist import (
    DATALIST_NAME,
    DatalistError,
    find_studies,
    is_result,
    load_datalist,
    shared_subjects,
    split_subjects,
    study_root,
)
from multiad_med.data.description import describe_training
from multiad_med.data.errors import FailureKind, StudyError, study_errors
from multiad_med.data.held_out import HeldOutPart, held_out_part, held_out_subjects
from multiad_med.data.slices import SliceDataset, open_slices
from multiad_med.data.splits import BmadBrainSplit, BmadLiverSlices, SubjectSplit
from multiad_med.data.store import SliceStore, StoreError, is_store, read_study, write_study
from multiad_med.data.studies import StudyDataset, StudyOutcome, StudyStatus

__all__ = [
    "DATALIST_NAME",
    "BmadBrainSplit",
    "BmadLiverSlices",
    "DatalistError",
    "FailureKind",
    "HeldOutPart",
    "SliceDataset",
    "SliceStore",
    "StoreError",
    "StudyDataset",
    "StudyError",
    "StudyOutcome",
    "StudyStatus",
    "SubjectSplit",
    "describe_training",
    "find_studies",
    "held_out_part",
    "held_out_subjects",
    "is_result",
    "is_store",
    "load_datalist",
    "open_slices",
    "read_study",
    "shared_subjects",
    "split_subjects",
    "study_errors",
    "study_root",
    "write_study",
]
