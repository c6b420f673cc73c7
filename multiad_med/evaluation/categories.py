"""Metrics of each category where a model is for several, their mean, and those of all together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from multiad_med.card import ModelCard
from multiad_med.evaluation.evaluation import Evaluation, finite_or_none
from multiad_med.evaluation.named_metrics import METRICS, named_metrics
from multiad_med.metrics import Estimate
from multiad_med.scoring import NormalScores

__all__ = ["MEAN", "POOLED", "CategoryMetrics", "category_metrics", "note_categories"]

MEAN = "mean"
POOLED = "pooled"

_FAR = 3
"""How many times the nominal rate of false alarms is told."""

CategoryMetrics = dict[str, float | None]
"""Metrics by name; None where they are undefined."""


def _rates(scores: Tensor, abnormal: Tensor, normals: NormalScores) -> CategoryMetrics:
    """Return the shares of normal and of abnormal images that the model's one threshold flags."""
    if normals.threshold is None:
        return {"observed_rate": None, "sensitivity": None}
    flagged = normals.flagged(scores).double()
    return {
        "observed_rate": finite_or_none(float(flagged[~abnormal].mean())),
        "sensitivity": finite_or_none(float(flagged[abnormal].mean())),
    }


def category_metrics(
    categories: Sequence[str],
    scores: Sequence[Tensor],
    abnormal: Sequence[Tensor],
    *,
    pixels: Mapping[str, Mapping[str, float]] | None,
    metrics: Mapping[str, Estimate],
    normals: NormalScores,
    spro: Mapping[str, float] | None = None,
) -> dict[str, CategoryMetrics]:
    """Return metrics of each category, their mean, and those of all images together.

    The mean over categories is what the field publishes: each category has thresholds of its own. Pooled
    metrics rank the images of all categories in one list, so that one threshold must do for all.

    Args:
        categories: of each study.
        scores: of the slices of each study.
        abnormal: whether each of them is.
        pixels: pixel metrics by category; None without masks.
        metrics: of all slices and pixels together, by name.
        normals: of slices, with the threshold of the verdict.
        spro: by category, of MVTec LOCO.

    Returns:
        By category, then ``mean`` and ``pooled``; nothing where there is only one category.
    """
    if len(set(categories)) < 2:
        return {}
    names = [name for name in METRICS if pixels is not None or name.startswith("image")]
    found: dict[str, CategoryMetrics] = {}
    for category in sorted(set(categories)):
        chosen = [i for i, own in enumerate(categories) if own == category]
        own_scores, own_abnormal = (
            torch.cat([its[i] for i in chosen]) for its in (scores, abnormal)
        )
        of_pixels = {} if pixels is None else pixels[category]
        own = named_metrics(own_scores, own_abnormal, of_pixels)
        found[category or "(none)"] = {
            **{name: own[name] for name in names},
            **_rates(own_scores, own_abnormal, normals),
            **({"spro": spro.get(category)} if spro else {}),
        }
    mean: CategoryMetrics = {}
    for name in next(iter(found.values())):
        known = [value for own in found.values() if (value := own[name]) is not None]
        mean[name] = sum(known) / len(known) if known else None
    together = {
        name: finite_or_none(metrics[name].value if name in metrics else math.nan) for name in names
    }
    pooled = {**together, **_rates(torch.cat(list(scores)), torch.cat(list(abnormal)), normals)}
    return {**found, MEAN: mean, POOLED: pooled}


def _misfits(evaluation: Evaluation) -> list[str]:
    """Return a remark on the categories of which the one threshold flags far too many normal images."""
    nominal = evaluation.calibration["slice"].nominal
    rates = {
        name: rate
        for name, own in evaluation.categories.items()
        if name not in (MEAN, POOLED) and (rate := own["observed_rate"]) is not None
    }
    far = [f"{rate:.0%} of {name}" for name, rate in rates.items() if rate > _FAR * nominal]
    if not far:
        return []
    return [
        f"The one threshold does not fit every category: flagged are {', '.join(far)} among the normal "
        f"{evaluation.words.slice}s, {nominal:.0%} were asked for. `multiad calibrate` with normal ones "
        "of a category sets thresholds for it."
    ]


def note_categories(evaluation: Evaluation, card: ModelCard) -> None:
    """Note categories that were trained and not tested, or tested and not trained, or fit no threshold.

    Args:
        evaluation: whose remarks are added to.
        card: of the model, which names categories where it has several.
    """
    evaluation.remarks += _misfits(evaluation)
    trained = set(card.training.get("training_data", {}).get("categories", ()))
    tested = {str(row["category"]) for row in evaluation.studies}
    if not trained or not tested - {""}:
        return
    told = [
        (trained - tested, "The model was trained on {} too: nothing of that was evaluated."),
        (tested - trained, "The model was not trained on {}: what is normal there it cannot know."),
    ]
    evaluation.remarks += [text.format(_listed(names)) for names, text in told if names]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(name or "(none)" for name in names))
