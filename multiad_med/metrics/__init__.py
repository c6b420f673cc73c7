"""Exact metrics of anomaly detection."""

from multiad_med.metrics.aupro import aupro
from multiad_med.metrics.ranking import Ranking, auroc, average_precision, f1_max

__all__ = ["Ranking", "aupro", "auroc", "average_precision", "f1_max"]
