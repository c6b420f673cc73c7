"""Metrics of anomaly detection, exact and streaming."""

from multiad_med.metrics.aupro import aupro
from multiad_med.metrics.bootstrap import (
    Estimate,
    bootstrap_froc,
    bootstrap_mean,
    bootstrap_ranking,
    interval,
    paired_difference,
    resamples,
)
from multiad_med.metrics.froc import FROC_RATES, Froc, ScanLesions, froc, pooled_scans, scan_lesions
from multiad_med.metrics.histograms import SubjectHistograms, map_edges
from multiad_med.metrics.lesions import Lesions, false_positive_components, lesion_scores, lesions
from multiad_med.metrics.overlap import dice, hausdorff95
from multiad_med.metrics.ranking import (
    PrecisionRecallCurve,
    Ranking,
    RocCurve,
    auroc,
    average_precision,
    f1_max,
)
from multiad_med.metrics.spro import Region, spro
from multiad_med.metrics.streaming import StreamingAupro, StreamingRanking, StreamingSpro

__all__ = [
    "FROC_RATES",
    "Estimate",
    "Froc",
    "Lesions",
    "PrecisionRecallCurve",
    "Ranking",
    "Region",
    "RocCurve",
    "ScanLesions",
    "StreamingAupro",
    "StreamingRanking",
    "StreamingSpro",
    "SubjectHistograms",
    "aupro",
    "auroc",
    "average_precision",
    "bootstrap_froc",
    "bootstrap_mean",
    "bootstrap_ranking",
    "dice",
    "f1_max",
    "false_positive_components",
    "froc",
    "hausdorff95",
    "interval",
    "lesion_scores",
    "lesions",
    "map_edges",
    "paired_difference",
    "pooled_scans",
    "resamples",
    "scan_lesions",
    "spro",
]
