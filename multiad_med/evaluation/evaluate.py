"""From scored cases to every metric of an evaluation, with intervals over patients."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multiad_med.evaluation.baselines import BASELINE_METRICS, Baselines
from multiad_med.evaluation.cases import Case
from multiad_med.evaluation.categories import category_metrics
from multiad_med.evaluation.collected import Collected, Thresholds
from multiad_med.evaluation.evaluation import Curve, Evaluation, Histogram
from multiad_med.evaluation.examples import Examples
from multiad_med.evaluation.kinds import kind_metrics
from multiad_med.evaluation.lesion_level import LesionLevel
from multiad_med.evaluation.pixel_level import PixelLevel
from multiad_med.evaluation.rates import observed_rates
from multiad_med.evaluation.rows import patient_rows, slice_rows, study_row
from multiad_med.evaluation.saturated_overlap import SaturatedOverlap
from multiad_med.evaluation.threshold_table import threshold_rows
from multiad_med.evaluation.words import Words
from multiad_med.metrics import Estimate, Ranking, bootstrap_mean
from multiad_med.scoring import Level
from multiad_med.utils.errors import InputError

__all__ = ["RunningEvaluation", "evaluate_cases"]

_FEW_PATIENTS = 20
_PROFILES = 4


def _scores_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """Return the scores of rows, and whether they are anomalous."""
    scores = torch.tensor([row["score"] for row in rows])
    return scores, torch.tensor([row["anomalous"] for row in rows])


def _studies(
    collected: Collected, rows: list[dict[str, Any]], of_patients: list[dict[str, Any]]
) -> tuple[dict[str, Estimate], dict[str, Estimate], Ranking]:
    """Return metrics of studies and of patients; a patient scores as its highest study."""
    scores, anomalous = _scores_of(rows)
    studies: dict[str, Estimate] = {}
    if len(rows) > len(collected.subjects):
        ranked, _ = collected.ranking("study", scores, anomalous, collected.of_case)
        studies = {k: v for k, v in ranked.items() if not k.endswith("f1_max")}
    for name, key in (("mean_dice", "dice"), ("hd95", "hd95_mm")):
        values = torch.tensor([row[key] for row in rows], dtype=torch.float64)
        per_subject = torch.full((len(collected.subjects),), math.nan, dtype=torch.float64)
        for subject in range(len(per_subject)):
            own = values[collected.of_case == subject]
            per_subject[subject] = own[~own.isnan()].mean() if (~own.isnan()).any() else math.nan
        if (~per_subject.isnan()).any():
            studies[name] = collected.interval(
                bootstrap_mean(per_subject, collected.weights), float(per_subject.nanmean())
            )
    patient_scores, patient_labels = _scores_of(of_patients)
    patients, ranking = collected.ranking(
        "patient", patient_scores, patient_labels, torch.arange(len(patient_scores))
    )
    return studies, {k: v for k, v in patients.items() if not k.endswith("f1_max")}, ranking


def _roc(name: str, ranking: Ranking) -> Curve:
    if not ranking.positives or not ranking.negatives:
        return Curve(name, [], [])
    curve = ranking.roc_curve()
    return Curve(name, curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist())


def _precision_recall(name: str, ranking: Ranking) -> Curve:
    curve = ranking.precision_recall_curve()
    return Curve(name, curve.recall.tolist(), curve.precision.tolist())


def _unbeaten(
    metrics: Mapping[str, Mapping[str, Estimate]],
    baselines: Mapping[str, Mapping[str, float]],
    words: Words,
) -> list[str]:
    """Return one sentence on all baselines that do as well as the model; none where it beats them."""
    own = {name: e.value for level in ("slices", "pixels") for name, e in metrics[level].items()}
    told = []
    for baseline, values in baselines.items():
        better = [
            f"{words.metrics()[name]} {values[name]:.3f} against {own[name]:.3f}"
            for name in BASELINE_METRICS
            if name in own and values.get(name, -math.inf) >= own[name]
        ]
        if better:
            told.append(f"{baseline} ({', '.join(better)})")
    if not told:
        return []
    return [
        f"The model does not beat every trivial baseline: {'; '.join(told)}. What they use is no "
        "anomaly, so that these metrics prove little here."
    ]


def _remarks(
    metrics: Mapping[str, Mapping[str, Estimate]],
    baselines: Mapping[str, Mapping[str, float]],
    collected: Collected,
    words: Words,
    *,
    unmasked: int,
    without_masks: bool,
    gaps: int,
) -> list[str]:
    remarks = _unbeaten(metrics, baselines, words)
    if (count := len(collected.subjects)) == 1:
        remarks.append(f"Only one {words.patient}: there are no intervals.")
    elif count < _FEW_PATIENTS:
        remarks.append(f"Only {count} {words.patient}s: intervals over so few are too narrow.")
    if collected.abnormal.all() or not collected.abnormal.any():
        which = "abnormal" if collected.abnormal.all() else "normal"
        remarks.append(
            f"All {words.slice}s are {which}: metrics that need both classes are undefined."
        )
    if without_masks:
        remarks.append("There are no masks: metrics are of whole images, none of pixels.")
    elif unmasked:
        remarks.append(
            f"{unmasked} abnormal {words.slice}s have no mask; pixel metrics leave them out."
        )
    if gaps:
        remarks.append(
            f"{gaps} studies lack slices between others; lesion metrics and distances leave them out."
        )
    return remarks


_M_MMAP_THRESHOLD = -3  # of malloc.h


def _let_go_of_arrays() -> None:
    """Make glibc return each freed array of 1 MB or more to the system at once, in this process.

    Otherwise it keeps those of up to 32 MB on its heap, between numbers that stay, and the heap grows
    with every volume: by 40 MB for each of 224 x 224 x 60.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**20)


class RunningEvaluation:
    """Reduce scored cases as they come, so that memory holds one case at a time.

    It keeps scores and table rows of slices and studies, histograms of subjects, lesions' scores, and
    the few slices that the report shows.

    Args:
        thresholds: from held-out normal images; without them 0.5 in the map and none for scores.
        saturated: for sPRO, of MVTec LOCO.
    """

    def __init__(
        self, thresholds: Thresholds | None = None, *, saturated: SaturatedOverlap | None = None
    ) -> None:
        self.thresholds = Thresholds() if thresholds is None else thresholds
        self._saturated = SaturatedOverlap(()) if saturated is None else saturated
        _let_go_of_arrays()
        self._pixels = PixelLevel(self.thresholds.pixel)
        self._lesions = LesionLevel()
        self._baselines = Baselines()
        self._examples = Examples(self.thresholds.pixel)
        self._studies: list[dict[str, Any]] = []
        self._slices: list[dict[str, Any]] = []
        self._scores: list[Tensor] = []
        self._abnormal: list[Tensor] = []
        self._unmasked = self._gaps = self._without_distance = 0
        self._images = True
        self._profiles: list[tuple[float, Curve]] = []

    def __len__(self) -> int:
        """Return the number of cases added."""
        return len(self._studies)

    def update(self, case: Case) -> None:
        """Add a case; nothing of it is kept but numbers, and a few slices as copies.

        Raises:
            InputError: when its map is not in [0, 1].
        """
        self._pixels.update(case)
        self._lesions.update(case)
        self._baselines.update(case)
        self._examples.update(case)
        self._saturated.update(case)
        row = study_row(case, self.thresholds)
        self._studies.append(row)
        self._slices += slice_rows(case, self.thresholds)
        self._scores.append(case.scores.clone())
        self._abnormal.append(case.abnormal.clone())
        self._unmasked += int((~case.masked).sum())
        self._gaps += case.has_gaps
        self._images &= case.is_image
        self._add_profile(case)
        self._without_distance += (
            case.spacing is not None and row["lesion_voxels"] > 0 and math.isnan(row["hd95_mm"])
        )

    def _add_profile(self, case: Case) -> None:
        """Keep the scores of whole slices of the volumes that reach the highest ones."""
        if case.whole_scores is not None and len(case.numbers) > 1:
            its = Curve(case.study, case.numbers.tolist(), case.whole_scores.tolist())
            self._profiles.append((max(its.y), its))
            self._profiles = sorted(self._profiles, key=lambda found: -found[0])[:_PROFILES]

    def result(
        self,
        *,
        bootstrap: int = 1000,
        seed: int = 0,
        training: list[Curve] | None = None,
        manifest: dict[str, Any] | None = None,
        remarks: Sequence[str] = (),
    ) -> Evaluation:
        """Return every metric of the cases so far; arguments and errors as of :func:`evaluate_cases`."""
        if not self._studies:
            raise InputError("There are no predictions to evaluate; the test split is empty.")
        subjects = [row["subject"] for row in self._studies]
        collected = Collected(subjects, self._scores, self._abnormal, count=bootstrap, seed=seed)
        slices, ranking = collected.ranking(
            "image", collected.scores, collected.abnormal, collected.of_slice
        )
        without_masks = 0 < self._unmasked == int(collected.abnormal.sum())
        pixels: dict[str, Estimate] = {}
        lesions: dict[str, Estimate] = {}
        reliability: list[Curve] = []
        froc_curve: list[Curve] = []
        lesion_count = 0
        if not without_masks:
            pixels, reliability = self._pixels.estimates(collected)
            lesions, froc_curve, lesion_count = self._lesions.estimates(collected)
        saturated = self._saturated.metrics()
        if saturated:
            mean = sum(saturated.values()) / len(saturated)
            pixels["spro"] = Estimate(mean, math.nan, math.nan)
        of_patients = patient_rows(self._studies, self.thresholds)
        studies, patients, patient_ranking = _studies(collected, self._studies, of_patients)
        metrics = {"slices": slices, "pixels": pixels, "lesions": lesions}
        slice_threshold = self.thresholds.level(Level.SLICE).threshold
        histograms = {
            "slices": Histogram(
                collected.scores[~collected.abnormal].tolist(),
                collected.scores[collected.abnormal].tolist(),
                math.nan if slice_threshold is None else slice_threshold,
            )
        }
        curves = {
            "roc": [_roc("slices", ranking)],
            "precision_recall": [_precision_recall("slices", ranking)],
            "froc": froc_curve,
            "reliability": reliability,
            "whole_slices": [curve for _, curve in self._profiles],
        }
        if len(collected.scores) > len(self._studies):
            metrics["studies"] = studies
        if len(collected.scores) > len(collected.subjects):
            metrics["patients"] = patients
            curves["roc"].append(_roc("patients", patient_ranking))
        baselines = self._baselines.metrics()
        volume_scores, patient_scores = _scores_of(self._studies), _scores_of(of_patients)
        calibration = observed_rates(
            self.thresholds,
            collected,
            self._pixels,
            volumes=volume_scores,
            patients=patient_scores,
        )
        if without_masks:
            del calibration["pixel"]
            baselines = {
                name: {k: v for k, v in values.items() if k.startswith("image")}
                for name, values in baselines.items()
            }
        grouped = len(collected.subjects) < len(self._studies)
        words = Words(images=self._images, patients=not self._images or grouped)
        own_remarks = _remarks(
            metrics,
            baselines,
            collected,
            words,
            unmasked=self._unmasked,
            without_masks=without_masks,
            gaps=self._gaps,
        )
        labelled = {Level.SLICE: (collected.scores, collected.abnormal)}
        if len(collected.scores) > len(self._studies):
            labelled[Level.VOLUME] = volume_scores
        if len(self._studies) > len(collected.subjects):
            labelled[Level.PATIENT] = patient_scores
        return Evaluation(
            metrics=metrics,
            baselines=baselines,
            remarks=[*remarks, *own_remarks],
            counts={
                "patients": len(collected.subjects),
                "studies": len(self._studies),
                "slices": len(collected.scores),
                "abnormal_slices": int(collected.abnormal.sum()),
                "lesions": lesion_count,
                "studies_without_distance": self._without_distance,
            },
            calibration=calibration,
            thresholds_table={
                str(level): threshold_rows(self.thresholds.level(level), *scored)
                for level, scored in labelled.items()
            },
            slices=self._slices,
            studies=self._studies,
            patients=of_patients,
            curves={
                name: drawn
                for name, lines in curves.items()
                if (drawn := [c for c in lines if c.x])
            },
            histograms=histograms,
            examples=self._examples.chosen(),
            categories=category_metrics(
                [row["category"] for row in self._studies],
                self._scores,
                self._abnormal,
                pixels=None if without_masks else self._pixels.categories(),
                spro=saturated,
                metrics={**slices, **pixels},
                normals=self.thresholds.level(Level.SLICE),
            ),
            kinds=kind_metrics(self._studies, self._scores, self._abnormal),
            training=training or [],
            manifest=manifest or {},
            words=words,
        )


def evaluate_cases(
    cases: Iterable[Case],
    *,
    thresholds: Thresholds | None = None,
    saturated: SaturatedOverlap | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    training: list[Curve] | None = None,
    manifest: dict[str, Any] | None = None,
    remarks: Sequence[str] = (),
) -> Evaluation:
    """Compute every metric of scored cases.

    Slices, pixels (of all pixels, as published metrics are, and inside the foreground), lesions
    (see :func:`multiad_med.metrics.froc`), studies and patients; 95 % intervals by bootstrap over
    patients; trivial baselines beside them; nominal and observed rates of every level. Metrics of slices,
    studies and patients are exact, those of pixels within 1e-4 or with a warning; the intervals of
    pixel metrics, and pixel metrics of categories, come from histograms
    (:class:`multiad_med.metrics.SubjectHistograms`).

    Args:
        cases: at least one; those of a volume have their slices in order, and maps lie in [0, 1]. A
            generator is best: each case is freed before the next is made.
        thresholds: from held-out normal images; without them 0.5 in the map and none for scores.
        saturated: for sPRO, of MVTec LOCO.
        bootstrap: number of resamples.
        seed: of the resampling.
        training: curves of the training, for the report.
        manifest: of :func:`multiad_med.evaluation.run_manifest`.
        remarks: further sentences that come first in the report.

    Raises:
        InputError: without cases, or when a map is not in [0, 1].
    """
    running = RunningEvaluation(thresholds, saturated=saturated)
    for case in cases:
        running.update(case)
        del case  # else it would stay until the next one is made
    return running.result(
        bootstrap=bootstrap, seed=seed, training=training, manifest=manifest, remarks=remarks
    )
