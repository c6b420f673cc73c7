"""From a trained model and a study to its map, scores and files."""

from multiad_med.inference.image_maps import SavePictureMapd
from multiad_med.inference.map_writers import BScanMapWriter, SaveImageMapd, StudyMapWriter
from multiad_med.inference.openvino import ExportError, OpenVINONetwork
from multiad_med.inference.scores import SaveScoresd, ScoreSlicesd, study_scores
from multiad_med.inference.severity import Band, BandThresholds, anomaly_bands
from multiad_med.inference.study_evaluator import StudyEvaluator, StudyFailureHandler
from multiad_med.inference.study_summary import StudySummaryHandler

__all__ = [
    "BScanMapWriter",
    "Band",
    "BandThresholds",
    "ExportError",
    "OpenVINONetwork",
    "SaveImageMapd",
    "SavePictureMapd",
    "SaveScoresd",
    "ScoreSlicesd",
    "StudyEvaluator",
    "StudyFailureHandler",
    "StudyMapWriter",
    "StudySummaryHandler",
    "anomaly_bands",
    "study_scores",
]
