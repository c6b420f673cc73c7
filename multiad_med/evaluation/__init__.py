"""Evaluation of labelled studies: every metric, the report, comparison with methods, ablation."""

from typing import Any

from multiad_med._moved import moved_name
from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.collected import Thresholds
from multiad_med.evaluation.evaluate import evaluate_cases
from multiad_med.evaluation.evaluation import Evaluation
from multiad_med.evaluation.handler import EvaluationHandler
from multiad_med.evaluation.parts import Part

__all__ = [
    "Case",
    "Evaluation",
    "EvaluationHandler",
    "Part",
    "Thresholds",
    "evaluate_cases",
]


def __getattr__(name: str) -> Any:  # names that have changed
    return moved_name(__name__, name)
