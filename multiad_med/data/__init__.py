"""Datalists, patient splits, and the data sets made from them."""

from typing import Any

from multiad_med._moved import moved_name
from multiad_med.data.class_splits import ClassProtocol, ClassSplit, Half, normal_classes
from multiad_med.data.datalist import (
    DATALIST_NAME,
    load_datalist,
    shared_subjects,
    split_subjects,
    study_root,
)
from multiad_med.data.description import describe_training
from multiad_med.data.hashes import file_sha256, state_sha256
from multiad_med.data.held_out import HeldOutPart, held_out_part, held_out_subjects
from multiad_med.data.joined_slices import JoinedSlices, joined_name, prepared_size, slice_caches
from multiad_med.data.shard_sampler import ShardSampler
from multiad_med.data.slice_cache import (
    CacheError,
    SliceCache,
    is_slice_cache,
    read_study,
    write_study,
)
from multiad_med.data.slice_dataset import SliceDataset, open_slices
from multiad_med.data.splits import BmadBrainSplit, BmadLiverSlices, SubjectSplit
from multiad_med.data.study_dataset import StudyDataset, StudyOutcome, StudyStatus
from multiad_med.data.study_errors import FailureKind, StudyError, study_errors
from multiad_med.data.study_files import DatalistError, find_studies, is_result
from multiad_med.data.study_results import StudyResults

__all__ = [
    "DATALIST_NAME",
    "BmadBrainSplit",
    "BmadLiverSlices",
    "CacheError",
    "ClassProtocol",
    "ClassSplit",
    "DatalistError",
    "FailureKind",
    "Half",
    "HeldOutPart",
    "JoinedSlices",
    "ShardSampler",
    "SliceCache",
    "SliceDataset",
    "StudyDataset",
    "StudyError",
    "StudyOutcome",
    "StudyResults",
    "StudyStatus",
    "SubjectSplit",
    "describe_training",
    "file_sha256",
    "find_studies",
    "held_out_part",
    "held_out_subjects",
    "is_result",
    "is_slice_cache",
    "joined_name",
    "load_datalist",
    "normal_classes",
    "open_slices",
    "prepared_size",
    "read_study",
    "shared_subjects",
    "slice_caches",
    "split_subjects",
    "state_sha256",
    "study_errors",
    "study_root",
    "write_study",
]


def __getattr__(name: str) -> Any:  # names that have changed
    return moved_name(__name__, name)
