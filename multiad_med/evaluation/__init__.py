"""Evaluation of labelled studies."""

from multiad_med.evaluation.handler import StudyMetricsHandler, dice

__all__ = ["StudyMetricsHandler", "dice"]
