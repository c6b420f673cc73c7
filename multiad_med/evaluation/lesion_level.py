"""FROC of cases: lesions found against false alarms per scan."""

from __future__ import annotations

import math
from typing import Any

from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.collected import Collected
from multiad_med.evaluation.evaluation import Curve
from multiad_med.metrics import (
    Estimate,
    ScanLesions,
    bootstrap_froc,
    froc,
    pooled_scans,
    scan_lesions,
)

__all__ = ["SIZES_MM3", "LesionLevel"]

SIZES_MM3 = {"small": (0.0, 100.0), "medium": (100.0, 1000.0), "large": (1000.0, math.inf)}
"""Classes of lesion size: a cube of 100 mm3 has sides of 4.6 mm, one of 1000 mm3 of 10 mm."""


class LesionLevel:
    """Sensitivity at rates of false positives per scan, and the FROC score.

    A lesion is a component of the mask, 26-connected in volumes and 8-connected in images. It is
    found at a threshold that flags a tenth of it or more. Lesion sizes are told apart where voxels have
    a size in mm. Studies with an abnormal slice that has no mask, or with missing slices in between,
    are left out. A case is reduced to :class:`multiad_med.metrics.ScanLesions` at once.
    """

    def __init__(self) -> None:
        self._scans: list[ScanLesions] = []
        self._subjects: list[str] = []
        self._in_mm = True

    def update(self, case: Case) -> None:
        """Add a case."""
        if not case.masked.all() or case.has_gaps:
            return
        grids = [case.volume(name) for name in ("anomaly_map", "label", "foreground")]
        solid = grids[0].shape[-1] > 1
        if not solid:
            grids = [grid[..., 0] for grid in grids]
        spacing = case.spacing if solid else None
        self._in_mm &= spacing is not None
        self._subjects.append(case.subject)
        self._scans.append(scan_lesions(*grids[:2], foreground=grids[2], spacing=spacing))

    def estimates(self, collected: Collected) -> tuple[dict[str, Estimate], list[Curve], int]:
        """Return metrics, the curve, and the number of lesions; without any the score is undefined."""
        if not any(scan.voxels for scan in self._scans) or not any(
            len(scan.scores) for scan in self._scans
        ):
            return {"froc_score": Estimate(math.nan, math.nan, math.nan)}, [], 0
        common = pooled_scans(self._scans)
        result = froc(*common)
        of_scan = collected.of_case.new_tensor([collected.position[s] for s in self._subjects])

        def estimate(value: float, **options: Any) -> Estimate:
            drawn = bootstrap_froc(*common, of_scan, collected.weights, **options)
            return collected.interval(drawn, value)

        metrics = {"froc_score": estimate(result.score)}
        for rate, value in result.at_rates.items():
            metrics[f"lesion_sensitivity_{rate:g}"] = estimate(value, rates=[rate])
        if self._in_mm:
            volumes = [scan.volumes for scan in self._scans]
            for name, size_range in SIZES_MM3.items():
                sized: dict[str, Any] = {"volumes": volumes, "size_range": size_range}
                part = froc(*common, **sized)
                if part.lesions:
                    metrics[f"froc_score_{name}"] = estimate(part.score, **sized)
        curve = Curve("lesions", list(result.false_positives), list(result.sensitivity))
        return metrics, [curve], result.lesions
