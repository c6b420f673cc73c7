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
from multiad_med.engines.experts import (
    ExpertHandler,
    expert_statistics,
    fit_experts,
    unite_experts,
)
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
from multiad_med.engines.self_testing import SelfTestHandler, record_self_test, self_test
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
    "ExpertHandler",
    "ModelLoader",
    "ModelSaver",
    "PeriodicValidation",
    "ResumableTraining",
    "Selection",
    "SelfTestHandler",
    "StudyEvaluator",
    "StudyFailureHandler",
    "StudySummaryHandler",
    "TensorBoardMapHandler",
    "TensorBoardStudentHandler",
    "calibrate",
    "check_shares",
    "epochs_for",
    "expert_statistics",
    "fit_experts",
    "record_self_test",
    "save_model",
    "score_units",
    "self_test",
    "set_thresholds",
    "training_scalars",
    "unite_experts",
]
