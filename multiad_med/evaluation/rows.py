"""Rows of an evaluation's tables: studies, slices, patients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.collected import Thresholds
from multiad_med.metrics import Ranking, dice, hausdorff95
from multiad_med.scoring import Level

__all__ = ["patient_rows", "slice_rows", "study_row"]


def _verdict(score: float, thresholds: Thresholds, level: Level) -> dict[str, Any]:
    """Return the p-value and verdict of a score by its own level's normal scores."""
    normals = thresholds.level(level)
    verdict = normals.verdict(score, thresholds.unit(level))
    return {"p_value": normals.p_value(score), "verdict": verdict}


def _false_alarm(
    anomalous: bool, score: float, thresholds: Thresholds, level: Level
) -> bool | None:
    """Return whether a normal unit is called anomalous; None if it is abnormal or has no verdict."""
    return None if anomalous else thresholds.level(level).anomalous(score)


def _false_alarms(case: Case, thresholds: Thresholds) -> dict[str, Any]:
    """Return by level: share of normal foreground pixels, number of normal slices, the study."""
    normal = case.foreground & ~case.label & case.masked[:, None, None]
    pixels = case.anomaly_map[normal] >= thresholds.pixel
    slices = thresholds.level(Level.SLICE)
    return {
        "false_alarm_pixels": float(pixels.double().mean()) if len(pixels) else math.nan,
        "false_alarm_slices": None
        if slices.threshold is None or case.abnormal.all()
        else int(slices.flagged(case.scores[~case.abnormal]).sum()),
        "false_alarm_volume": _false_alarm(case.anomalous, case.score, thresholds, Level.VOLUME),
    }


def study_row(case: Case, thresholds: Thresholds) -> dict[str, Any]:
    """Return a study's own metrics on its whole grid."""
    maps, label = case.volume("anomaly_map"), case.volume("label")
    known = bool(case.masked.all())
    solid = known and not case.has_gaps
    ranking = Ranking(case.anomaly_map, case.label) if known else None
    flagged = maps >= thresholds.pixel
    spacing = case.spacing
    return {
        "study": case.study,
        "subject": case.subject,
        "category": case.category,
        "kind": case.kind,
        "anomalous": case.anomalous,
        "score": case.score,
        **_verdict(case.score, thresholds, Level.VOLUME),
        "slices": len(case.scores),
        "abnormal_slices": int(case.abnormal.sum()),
        "lesion_voxels": int(label.sum()),
        "flagged_voxels": int(flagged.sum()),
        **_false_alarms(case, thresholds),
        "pixel_auroc": math.nan if ranking is None else ranking.auroc,
        "pixel_ap": math.nan if ranking is None else ranking.average_precision,
        "best_dice": math.nan if ranking is None else ranking.f1_max,
        "dice": dice(flagged, label) if known and label.any() else math.nan,
        "hd95_mm": hausdorff95(flagged, label, spacing=spacing)
        if solid and spacing is not None
        else math.nan,
    }


def slice_rows(case: Case, thresholds: Thresholds) -> Iterable[dict[str, Any]]:
    """Return each slice's own metrics."""
    for i, number in enumerate(case.numbers.tolist()):
        flagged = case.anomaly_map[i] >= thresholds.pixel
        yield {
            "study": case.study,
            "subject": case.subject,
            "category": case.category,
            "kind": case.kind,
            "slice": number,
            "abnormal": bool(case.abnormal[i]),
            "score": float(case.scores[i]),
            **({} if case.whole_scores is None else {"whole_score": float(case.whole_scores[i])}),
            "foreground_pixels": int(case.foreground[i].sum()),
            "lesion_pixels": int(case.label[i].sum()),
            "flagged_pixels": int(flagged.sum()),
            "dice": dice(flagged, case.label[i]) if case.masked[i] else math.nan,
        }


def patient_rows(
    studies: Sequence[Mapping[str, Any]], thresholds: Thresholds
) -> list[dict[str, Any]]:
    """Return patients, by name: each scores as its highest study, and is anomalous if one of them is."""
    patients: dict[str, list[Mapping[str, Any]]] = {}
    for row in studies:
        patients.setdefault(row["subject"], []).append(row)
    return [
        {
            "subject": subject,
            "studies": len(own),
            "anomalous": (anomalous := any(row["anomalous"] for row in own)),
            "score": (score := max(row["score"] for row in own)),
            **_verdict(score, thresholds, Level.PATIENT),
            "false_alarm_patient": _false_alarm(anomalous, score, thresholds, Level.PATIENT),
        }
        for subject, own in sorted(patients.items())
    ]
