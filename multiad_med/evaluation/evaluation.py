"""The result of an evaluation: metrics with intervals, rows, curves, images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from multiad_med.evaluation.words import Words
from multiad_med.metrics import Estimate
from multiad_med.self_test_result import SelfTest

__all__ = ["Curve", "Evaluation", "Example", "Histogram", "LevelRates", "finite_or_none"]


def finite_or_none(value: float) -> float | None:
    """Return the value, or None for what JSON cannot hold."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Curve:
    """A line to be drawn.

    Attributes:
        name: in the legend.
        x, y: points.
    """

    name: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Histogram:
    """Scores of normal and abnormal items, and the threshold from held-out normals."""

    normal: list[float]
    abnormal: list[float]
    threshold: float


@dataclass(frozen=True)
class Example:
    """An example slice for the report.

    Attributes:
        title: name and score.
        image: ``(H, W)`` in [0, 1], as a radiologist looks at it.
        anomaly_map: ``(H, W)`` in [0, 1), 0.5 being the threshold.
        label: ``(H, W)``, true inside lesions.
        best: whether it is one of the best, else one of the worst.
    """

    title: str
    image: Tensor
    anomaly_map: Tensor
    label: Tensor
    best: bool


def _plain_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: finite_or_none(v) if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]


@dataclass(frozen=True)
class LevelRates:
    """The false-positive rate of a level, asked for and observed.

    Attributes:
        nominal: the rate that was asked for; NaN where unknown.
        threshold: from which an item counts as anomalous; None where there is no verdict.
        no_verdict: why there is none.
        held_out: number of held-out normal items that the threshold comes from; None of pixels.
        approximate: why the nominal rate holds only approximately.
        normal, anomalous: number of labelled items.
        observed: share of the normal ones that is called anomalous, with its 95 % interval.
        sensitivity: share of the anomalous ones, likewise.
    """

    nominal: float
    threshold: float | None
    no_verdict: str
    held_out: int | None
    approximate: str
    normal: int
    observed: Estimate
    anomalous: int
    sensitivity: Estimate

    def as_json(self) -> dict[str, Any]:
        """Return all numbers by name, None where undefined."""

        def interval(estimate: Estimate) -> list[float | None]:
            return [finite_or_none(estimate.low), finite_or_none(estimate.high)]

        return {
            "nominal_rate": finite_or_none(self.nominal),
            "threshold": self.threshold,
            "no_verdict": self.no_verdict,
            "held_out_normals": self.held_out,
            "approximate": self.approximate,
            "normals": self.normal,
            "observed_rate": finite_or_none(self.observed.value),
            "observed_rate_95": interval(self.observed),
            "anomalous": self.anomalous,
            "sensitivity": finite_or_none(self.sensitivity.value),
            "sensitivity_95": interval(self.sensitivity),
        }


@dataclass
class Evaluation:
    """The result of :func:`multiad_med.evaluation.evaluate_cases`.

    Attributes:
        metrics: by level (``slices``, ``pixels``, ``lesions``, ``studies``, ``patients``), then by name.
        baselines: metrics of trivial baselines that look at no anomaly map, by baseline, then by name.
        remarks: sentences that come first in the report, such as that a baseline does as well.
        counts: numbers of patients, studies, slices, lesions.
        calibration: nominal and observed rates by level: ``pixel``, ``slice``, ``volume``, ``patient``.
        thresholds_table: by level (``slice``, ``volume``, ``patient``), what each rate in reach flags;
            see :func:`multiad_med.evaluation.threshold_table.threshold_rows`.
        seen_images: which evaluated images the model has seen; empty where its card does not say.
        self_test: the self-test on the model's card; None where there is none.
        slices, studies, patients: rows of the tables.
        curves: by panel (``roc``, ``precision_recall``, ``froc``, ``reliability``, ``whole_slices``).
        histograms: by level (``slices``).
        examples: best and worst slices.
        categories: where there are several products or organs, metrics of each, under ``mean`` their
            mean, and under ``pooled`` those of all together; see
            :func:`multiad_med.evaluation.categories.category_metrics`.
        kinds: image AUROC of each kind of anomaly against the normal images and, under ``mean``, the
            mean over kinds, where there are several; see
            :func:`multiad_med.evaluation.kinds.kind_metrics`.
        training: L_G by epoch or other curves of the training, where known.
        manifest: versions, seed, hashes.
        words: names of its parts.
    """

    metrics: dict[str, dict[str, Estimate]]
    baselines: dict[str, dict[str, float]]
    remarks: list[str]
    counts: dict[str, int]
    calibration: dict[str, LevelRates]
    slices: list[dict[str, Any]]
    studies: list[dict[str, Any]]
    curves: dict[str, list[Curve]]
    histograms: dict[str, Histogram]
    examples: list[Example]
    patients: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[str, dict[str, float | None]] = field(default_factory=dict)
    kinds: dict[str, dict[str, float | None]] = field(default_factory=dict)
    training: list[Curve] = field(default_factory=list)
    thresholds_table: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seen_images: dict[str, Any] = field(default_factory=dict)
    self_test: SelfTest | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    words: Words = field(default_factory=Words)

    def as_json(self) -> dict[str, Any]:
        """Return all metrics by name, None where undefined, with intervals beside them."""
        metrics = {k: v for level in self.metrics.values() for k, v in level.items()}
        return {
            **{name: finite_or_none(e.value) for name, e in metrics.items()},
            "intervals_95": {
                name: [finite_or_none(e.low), finite_or_none(e.high)]
                for name, e in metrics.items()
                if math.isfinite(e.low)
            },
            "baselines": {
                name: {k: finite_or_none(v) for k, v in values.items()}
                for name, values in self.baselines.items()
            },
            "categories": self.categories,
            "kinds": self.kinds,
            "remarks": self.remarks,
            "words": asdict(self.words),
            "counts": self.counts,
            "calibration": {level: rates.as_json() for level, rates in self.calibration.items()},
            "thresholds_table": self.thresholds_table,
            "seen_images": self.seen_images,
            "self_test": None if self.self_test is None else self.self_test.as_json(),
            "studies": _plain_rows(self.studies),
            "patients": _plain_rows(self.patients),
            "manifest": self.manifest,
        }
