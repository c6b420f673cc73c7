"""MONAI engines and handlers for distillation."""

from multiad_med.engines.best import BestStudent, Selection
from multiad_med.engines.calibration import (
    CalibrationHandler,
    calibrate,
    score_units,
    set_thresholds,
)
from multiad_med.engines.distributed import check_shares
from multiad_med.engines.epochs import EpochLog
from multiad_med.engines.evaluator import DistillationEvaluator
from multiad_med.engines.handlers import (
    CheckpointError,
    EpochSeedHandler,
    ModelLoader,
    ModelSaver,
    ResumableTraining,
    save_model,
    training_scalars,
)
from multiad_med.engines.schedule import PeriodicValidation, epochs_for
from multiad_med.engines.studies import StudyEvaluator, StudyFailureHandler
from multiad_med.engines.summary import StudySummaryHandler
from multiad_med.engines.tensorboard import TensorBoardMapHandler, TensorBoardStudentHandler
from multiad_med.engines.trainer import DistillationTrainer

__all__ = [
    "BestStudent",
    "CalibrationHandler",
    "CheckpointError",
    "DistillationEvaluator",
    "DistillationTrainer",
    "EpochLog",
    "EpochSeedHandler",
    "ModelLoader",
    "ModelSaver",
    "PeriodicValidation",
    "ResumableTraining",
    "Selection",
    "StudyEvaluator",
    "StudyFailureHandler",
    "StudySummaryHandler",
    "TensorBoardMapHandler",
    "TensorBoardStudentHandler",
    "calibrate",
    "check_shares",
    "epochs_for",
    "save_model",
    "score_units",
    "set_thresholds",
    "training_scalars",
]
