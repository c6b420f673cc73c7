"""What is written: study maps, scores, pictures; each file whole or not at all."""

from multiad_med.io.atomic import atomic_path, write_json
from multiad_med.io.montage import MontageColumn, save_montage
from multiad_med.io.nifti import StudyMapWriter
from multiad_med.io.scores import (
    NotCalibratedError,
    SaveScoresd,
    ScoreSlicesd,
    file_sha256,
    state_sha256,
)

__all__ = [
    "MontageColumn",
    "NotCalibratedError",
    "SaveScoresd",
    "ScoreSlicesd",
    "StudyMapWriter",
    "atomic_path",
    "file_sha256",
    "save_montage",
    "state_sha256",
    "write_json",
]
