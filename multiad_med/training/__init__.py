"""How a model learns: trainer, validation, experts, calibration, self-test."""

from multiad_med.training.best import BestStudent, Selection
from multiad_med.training.calibration import (
    CalibrationHandler,
    calibrate,
    score_units,
    set_thresholds,
)
from multiad_med.training.distributed import check_shares
from multiad_med.training.epoch_log import EpochLog
from multiad_med.training.expert_fitting import (
    ExpertHandler,
    expert_statistics,
    fit_experts,
    unite_experts,
)
from multiad_med.training.feature_cache import cached_features
from multiad_med.training.handlers import (
    CheckpointError,
    EpochSeedHandler,
    ModelLoader,
    ModelSaver,
    ResumableTraining,
    save_model,
    training_scalars,
)
from multiad_med.training.schedule import PeriodicValidation, epochs_for
from multiad_med.training.self_testing import SelfTestHandler, record_self_test, self_test
from multiad_med.training.stable_adamw import StableAdamW
from multiad_med.training.tensorboard import TensorBoardMapHandler, TensorBoardStudentHandler
from multiad_med.training.trainer import DistillationTrainer
from multiad_med.training.validation import DistillationEvaluator

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
    "StableAdamW",
    "TensorBoardMapHandler",
    "TensorBoardStudentHandler",
    "cached_features",
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
