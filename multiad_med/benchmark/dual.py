"""The second paper's tables: a dual student, its parts and their untrained rivals, on one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from multiad_med.benchmark.compare import sets_of
from multiad_med.benchmark.dual_detector import DualDetector, DualPart
from multiad_med.benchmark.outcome_tables import (
    average_over_sets,
    markdown_table,
    mean_and_deviation,
    write_outcomes,
)
from multiad_med.benchmark.outcomes import Job, Outcome, run_jobs
from multiad_med.data import SliceCache
from multiad_med.evaluation.categories import POOLED
from multiad_med.evaluation.named_metrics import named_metrics
from multiad_med.networks import PRESETS, NoisyOrForm, StudentKind, TeacherWeights
from multiad_med.preparation.recipe_run import PreparationError, prepare
from multiad_med.preparation.recipes import load_recipe
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.choose import choose, usable_device
from multiad_med.utils.errors import InputError

__all__ = ["DUAL_SETS", "DualSet", "dual", "dual_table", "prepare_runs"]


@dataclass(frozen=True)
class DualSet:
    """A data set of the second paper.

    Attributes:
        recipe: that prepares it.
        classes: of a set of classes, how many there are; 0 of one with categories of products.
        score_fraction: part of an image's pixels whose mean is its score.
    """

    recipe: str
    classes: int = 0
    score_fraction: float = 0.0

    def runs(self, protocol: str, chosen: Sequence[int] = ()) -> dict[str, dict[str, Any]]:
        """Return the recipe's settings of each model of a protocol, by name.

        Raises:
            InputError: when the protocol is none of this set, or a class is none of it.
        """
        if not self.classes:
            if protocol != "categories":
                raise InputError(
                    f"{self.recipe} has categories and no classes: choose the protocol 'categories'."
                )
            if chosen:
                raise InputError(f"{self.recipe} has categories and no classes: leave classes out.")
            return {"all": {}}
        if any(not 0 <= number < self.classes for number in chosen):
            raise InputError(
                f"Classes are numbers from 0 to {self.classes - 1}, got {list(chosen)}."
            )
        numbers = list(chosen) or list(range(self.classes))
        if protocol == "one_vs_rest":
            return {f"normal_{n}": {"normal": n} for n in numbers}
        if protocol == "leave_one_out":
            return {f"anomalous_{n}": {"anomalous": n} for n in numbers}
        if protocol == "halves":
            return {half: {"normal": half} for half in ("first", "second", "even", "odd")}
        raise InputError(
            f"Unknown protocol {protocol!r}; choose one_vs_rest, leave_one_out or halves."
        )


DUAL_SETS: dict[str, DualSet] = {
    "fashion_mnist": DualSet("fashion_mnist", 10, 1.0),
    "cifar10": DualSet("cifar10", 10, 1.0),
    "cifar100": DualSet("cifar100", 20, 1.0),
    "intel_scenes": DualSet("intel_scenes", 6, 1.0),
    "mvtec_ad": DualSet("mvtec_ad", score_fraction=0.01),
    "mvtec_loco": DualSet("mvtec_ad", score_fraction=0.01),
    "visa": DualSet("mvtec_ad", score_fraction=0.01),
    "real_iad": DualSet("real_iad", score_fraction=0.01),
}
"""Data sets of the second paper by name."""


def prepare_runs(
    name: str,
    source: str | Path,
    folder: str | Path,
    *,
    protocol: str = "one_vs_rest",
    classes: Sequence[int] = (),
    size: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Prepare the slices of each model of a protocol.

    Args:
        name: of :data:`DUAL_SETS`.
        source: the data set as published.
        folder: for the slices, one folder a model.
        protocol: ``one_vs_rest``, ``leave_one_out``, ``halves``; ``categories`` of products.
        classes: numbers of those to run; none means all.
        size: side of the images in pixels; without it the recipe's.
        settings: further settings of the recipe, such as ``training_images``.

    Raises:
        InputError: on an unknown set, protocol or class.
        DatalistError, PreparationError: see :func:`multiad_med.preparation.prepare`.
    """
    if name not in DUAL_SETS:
        raise InputError(f"Unknown data set {name!r}; choose one of {list(DUAL_SETS)}.")
    chosen = DUAL_SETS[name]
    common = {**(settings or {}), **({} if size is None else {"size": size})}
    caches = []
    for run, own in chosen.runs(protocol, classes).items():
        if chosen.classes:
            own = {"protocol": protocol, **own}
        caches.append(Path(folder) / f"{name}_{run}")
        recipe = load_recipe(chosen.recipe, {**common, **own})
        summary = prepare(recipe, source, caches[-1], progress=False)
        if summary.failures:
            raise PreparationError(
                f"{caches[-1]}: {len(summary.failures)} images could not be prepared, so that the table "
                f"would be of other images than the published: {summary.failures[0]}."
            )
    return caches


def _build(options: Mapping[str, Any]) -> DualDetector:
    return DualDetector(**options)


def _score(detector: Any, held_out: Any, *, part: DualPart) -> None:
    detector.score(part)


def dual(
    caches: Sequence[str | Path],
    output: str | Path,
    *,
    preset: str = "dual_lite2",
    teacher_weights: str = TeacherWeights.IMAGENET,
    forms: Sequence[NoisyOrForm | str] = (NoisyOrForm.LIKELIHOOD,),
    seeds: Sequence[int] = (0,),
    epochs: int | None = None,
    score_fraction: float = 0.0,
    together: bool = False,
    cache_features: bool = False,
    device: str = "cpu",
) -> list[Outcome]:
    """Train dual students on prepared slices; write ``dual.csv`` and ``dual.md``.

    One training gives all rows of a form: local and semantic student, both, and the untrained nearest
    neighbours and Gaussian on the same tokens. What is in ``output`` already is not run again.

    Args:
        caches: folders of `multiad prepare`, as of :func:`prepare_runs`.
        output: folder for the outcomes and tables.
        preset: with student ``dual``.
        teacher_weights: ``imagenet`` or a file.
        forms: of the loss; one training each.
        seeds: one training each.
        epochs: of each training; None leaves its length to the preset.
        score_fraction: see :class:`DualSet`.
        together: whether one model learns all categories of a cache, instead of one each. Rows are of
            each category, and of all pooled.
        cache_features: see :func:`multiad_med.training.cached_features`.
        device: where to run.

    Raises:
        InputError: on a preset without a dual student, an unknown form or device.
        CacheError: when a folder holds no cache.
    """
    duals = [name for name, chosen in PRESETS.items() if chosen.student is StudentKind.DUAL]
    if preset not in duals:
        raise InputError(f"{preset!r} is no preset with a dual student; choose one of {duals}.")
    usable_device(device)
    places = [(cache, "" if together else category) for cache, category, _ in sets_of(caches)]
    jobs: list[Job] = []
    for cache, category in dict.fromkeys(places):
        for form in (choose(NoisyOrForm, form, what="form") for form in forms):
            options = {
                "preset": preset,
                "name": f"joint, {form}",
                "teacher_weights": str(teacher_weights),
                "epochs": epochs,
                "score_fraction": score_fraction,
                "form": str(form),
                "cache_features": cache_features,
                "device": device,
            }
            variants = tuple(
                (f"{part}, {form}", partial(_score, part=part))
                for part in DualPart
                if part is not DualPart.JOINT
            )
            build = partial(_build, options)
            jobs += [
                Job(
                    f"joint, {form}", build, cache, category, seed, device=device, variants=variants
                )
                for seed in seeds
            ]
    outcomes = run_jobs(jobs, Path(output) / "outcomes")
    if together:
        folders = {Path(cache).name: cache for cache, _ in places}
        outcomes = [own for o in outcomes for own in _by_category(o, folders[o.dataset])]
    for outcome in outcomes:
        if not outcome.method.startswith(DualPart.JOINT):  # of one training and one pass
            outcome.latency_ms = outcome.train_seconds = None
    write_outcomes(Path(output) / "dual.csv", outcomes)
    with atomic_path(Path(output) / "dual.md") as temporary:
        temporary.write_text(dual_table(outcomes), encoding="utf-8")
    return outcomes


def _by_category(outcome: Outcome, cache: str | Path) -> list[Outcome]:
    """Return the image metrics of each category, and all metrics of all of them, pooled."""
    of_study = {
        str(row["study"]): str(row["category"]) for row in SliceCache(cache, split="test").index
    }
    found = []
    for category in sorted(set(of_study.values())):
        own = [s for s in outcome.scores if of_study[s[0]] == category]
        scores, abnormal = torch.tensor([s[4] for s in own]), torch.tensor([s[3] for s in own])
        metrics = {
            name: value
            for name, value in named_metrics(scores, abnormal, {}).items()
            if name.startswith("image")
        }
        found.append(replace(outcome, category=category, metrics=metrics, scores=own))
    return [*found, replace(outcome, category=POOLED)]


def dual_table(outcomes: Sequence[Outcome]) -> str:
    """Return Markdown: image AUROC of every part on every set, and the mean over sets or categories.

    What is pooled over categories does not count in the mean. Of sets with masks, pixel AP and AUPRO of
    the map follow.
    """
    sets = list(dict.fromkeys((o.dataset, o.category) for o in outcomes))
    methods = list(dict.fromkeys(o.method for o in outcomes))
    metrics = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "aupro": "AUPRO"}
    text = ""
    for metric, title in metrics.items():
        if all(o.metrics.get(metric) is None for o in outcomes):
            continue
        header = [title, *(f"{dataset} {category}".strip() for dataset, category in sets), "mean"]
        rows = []
        for method in methods:
            own = [o for o in outcomes if o.method == method]
            cells = [
                mean_and_deviation(
                    o.metrics.get(metric) for o in own if (o.dataset, o.category) == place
                )
                for place in sets
            ]
            each = [place for place in sets if place[1] != POOLED]
            mean = mean_and_deviation(
                average_over_sets(
                    [o for o in own if (o.dataset, o.category) in each], metric, sets=len(each)
                )
            )
            rows.append([method, *cells, mean])
        text += f"{markdown_table(header, rows)}\n"
    return text
