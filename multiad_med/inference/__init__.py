"""From a trained model and a study to its map, scores and files."""

from multiad_med.inference.image_maps import SaveTiffMapd
from multiad_med.inference.map_writers import BScanMapWriter, SaveImageMapd, StudyMapWriter
from multiad_med.inference.runtime import Runtime, RuntimeNetwork, RuntimeUnfitError
from multiad_med.inference.scores import SaveScoresd, ScoreSlicesd, study_scores
from multiad_med.inference.severity import SeverityLevel, SeverityThresholds, severity_levels
from multiad_med.inference.study_evaluator import StudyEvaluator, StudyFailureHandler
from multiad_med.inference.study_summary import StudySummaryHandler

__all__ = [
    "BScanMapWriter",
    "Runtime",
    "RuntimeNetwork",
    "RuntimeUnfitError",
    "SaveImageMapd",
    "SaveScoresd",
    "SaveTiffMapd",
    "ScoreSlicesd",
    "SeverityLevel",
    "SeverityThresholds",
    "StudyEvaluator",
    "StudyFailureHandler",
    "StudyMapWriter",
    "StudySummaryHandler",
    "severity_levels",
    "study_scores",
]
