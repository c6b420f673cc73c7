"""Multi-AD and published methods, trained and tested on the same slices, teacher, size and split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from multiad_med.benchmark.detectors import Detector, MultiADDetector, Settings
from multiad_med.benchmark.outcome_tables import (
    average_over_sets,
    markdown_table,
    mean_and_deviation,
    write_outcomes,
)
from multiad_med.benchmark.outcomes import Job, Outcome, run_jobs
from multiad_med.data import SliceCache
from multiad_med.evaluation.baselines import baseline_note, baselines_of
from multiad_med.evaluation.parts import Part
from multiad_med.metrics import bootstrap_ranking, paired_difference, resamples
from multiad_med.metrics.bootstrap import Metric
from multiad_med.networks import PRESETS, StudentKind, TeacherWeights, build_multiad
from multiad_med.resources import read_config
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.choose import choose, usable_device
from multiad_med.utils.errors import InputError
from multiad_med.utils.settings import parse_pairs
from multiad_med.utils.sizes import sides

__all__ = ["METHODS", "MULTIAD", "compare", "comparison_table", "parse_files", "sets_of"]

MULTIAD = {"multiad": StudentKind.DECODER, "multiad_paper": StudentKind.IMAGE}
"""Our methods by name, and the student each has."""

METHODS = (
    *MULTIAD,
    "padim",
    "patchcore",
    "patchcore_1",
    "stfpm",
    "reverse_distillation",
    "efficient_ad",
    "supersimplenet",
    "dinomaly",
    "mkd",
    "simplenet",
)
"""All methods; ``patchcore_1`` has a coreset of 1 %. One that cannot run is listed with the reason."""

_LEARNING_RATES = {StudentKind.DECODER: 4e-3, StudentKind.IMAGE: 1e-3, StudentKind.NONE: 1e-3}
_HARDEST = {StudentKind.DECODER: 0.1, StudentKind.IMAGE: 1.0, StudentKind.NONE: 1.0}


def multiad_settings(
    method: str,
    *,
    teacher: str,
    teacher_weights: str,
    epochs: int,
    bundle: str | None = None,
) -> Settings:
    """Return how Multi-AD is trained in a comparison.

    Args:
        method: ``multiad`` (the decoder student, see docs/decisions.md), ``multiad_paper`` (the
            paper's student), or a preset, whose own teacher it then has.
        teacher: see :func:`compare`.
        teacher_weights: see :func:`compare`.
        epochs: see :func:`compare`.
        bundle: see :func:`compare`.

    Raises:
        InputError: on an unknown bundle.
    """
    student = MULTIAD[method] if method in MULTIAD else PRESETS[method].student
    domain: dict[str, Any] = {}
    if bundle is not None:
        config = read_config(bundle, "train.json")
        domain["score_fraction"] = config["score_fraction"]
        if student is not StudentKind.NONE:
            domain["fused"] = tuple(config["fused"])
        if student is StudentKind.DECODER:
            domain |= {"experts": tuple(config["experts"]), "fusion": config["fusion"]}
    learning: dict[str, Any] = {
        "epochs": epochs,
        "learning_rate": _LEARNING_RATES[student],
        "hardest": _HARDEST[student],
    }
    if method in PRESETS:
        return Settings(method, teacher_weights=teacher_weights, **learning, **domain)
    return Settings(
        teacher,
        teacher_weights=teacher_weights,
        student=student,
        stages=(1, 2, 3) if student is StudentKind.DECODER else None,
        output_stride=32,
        **learning,
        **domain,
    )


def _multiad(settings: Settings, name: str, device: str) -> Detector:
    return MultiADDetector(settings, name=name, device=device)


def _published(
    name: str,
    *,
    teacher: str,
    teacher_weights: str,
    size: tuple[int, int],
    epochs: int,
    device: str,
    **files: Any,
) -> Detector:
    from multiad_med.benchmark.methods import build_method

    network = build_multiad(teacher, teacher_weights=teacher_weights, output_stride=32)
    return build_method(
        name,
        teacher=network.teacher,
        architecture=teacher,
        size=size,
        epochs=epochs,
        device=device,
        **files,
    )


def sets_of(caches: Sequence[str | Path]) -> list[tuple[str, str, tuple[int, int]]]:
    """Return ``(cache, category, (H, W))`` of every category of every cache.

    Raises:
        CacheError: when a folder holds no cache.
        InputError: when two have the same name.
    """
    names = [Path(folder).resolve().name for folder in caches]
    if len(set(names)) < len(names):
        raise InputError(f"Caches must have different names, got {names}; tables go by them.")
    found = []
    for folder in caches:
        cache = SliceCache(folder)
        categories = sorted({row["category"] for row in cache.index})
        size = sides(cache.about["size"])
        found += [
            (str(Path(folder).resolve()), category if len(categories) > 1 else "", size)
            for category in categories
        ]
    return found


def parse_files(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return ``METHOD.NAME=PATH`` texts as :func:`compare` takes files.

    Raises:
        InputError: on another form, or a file that is not there.
    """
    files: dict[str, dict[str, str]] = {}
    for target, path in parse_pairs(given, option="--file").items():
        method, _, name = target.partition(".")
        if not (method in METHODS and name and Path(path).exists()):
            raise InputError(
                f"{target}={path} is not METHOD.NAME=PATH of an existing file, as dinomaly.weights=FILE."
            )
        files.setdefault(method, {})[name] = path
    return files


def compare(
    caches: Sequence[str | Path],
    output: str | Path,
    *,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0,),
    teacher: str = "efficientnet_lite0",
    teacher_weights: str = TeacherWeights.IMAGENET,
    epochs: int = 20,
    bundle: str | None = None,
    part: Part | str = Part.ALL,
    device: str = "cpu",
    files: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Outcome]:
    """Train and test methods on prepared slices; write ``comparison.csv`` and ``comparison.md``.

    Every method of one run sees the same training, held-out and test slices and the same frozen
    teacher, and is measured by the same code. Each runs in its own process, so that its memory can be
    measured. What is in ``output`` already is not run again.

    Args:
        caches: folders of `multiad prepare`; each category of an industrial set is trained alone.
        output: folder for the outcomes and tables.
        methods: of :data:`METHODS`, or presets of :data:`multiad_med.networks.PRESETS`.
        seeds: one training each.
        teacher: architecture of the teacher of all methods that have one.
        teacher_weights: ``imagenet`` or a file.
        epochs: of the methods that train by epochs.
        bundle: whose choices for its domain Multi-AD makes: stages, experts and fusion, and the score of
            a slice; without it all stages by z-scores, no expert, and the map's maximum.
        part: of the test splits; see :class:`Part`.
        device: where to run.
        files: of a method, by its name: ``weights`` and ``imagenet`` of ``efficient_ad``, ``weights``
            and ``encoder`` of ``dinomaly``.

    Raises:
        InputError: on an unknown method, teacher, bundle, part or device, or caches of one name.
        WeightsError: when the teacher's weights cannot be had or do not fit.
        CacheError: when a folder holds no cache.
    """
    unknown = sorted(set(methods) - set(METHODS) - set(PRESETS))
    if unknown:
        raise InputError(
            f"Unknown methods {unknown}; choose from {list(METHODS)} and the presets {list(PRESETS)}."
        )
    build_multiad(teacher, teacher_weights=teacher_weights, output_stride=32)
    usable_device(device)
    part, output = choose(Part, part, what="part"), Path(output)
    jobs: list[Job] = []
    for cache, category, size in sets_of(caches):
        for method in methods:
            for seed in seeds:
                if method in MULTIAD or method in PRESETS.keys() - set(METHODS):
                    settings = multiad_settings(
                        method,
                        teacher=teacher,
                        teacher_weights=str(teacher_weights),
                        epochs=epochs,
                        bundle=bundle,
                    )
                    build = partial(_multiad, settings, method, device)
                else:
                    build = partial(
                        _published,
                        method,
                        teacher=teacher,
                        teacher_weights=str(teacher_weights),
                        size=size,
                        epochs=epochs,
                        device=device,
                        **(files or {}).get(method, {}),
                    )
                jobs.append(Job(method, build, cache, category, seed, part, device))
    outcomes = run_jobs(jobs, output / "outcomes")
    write_outcomes(output / "comparison.csv", outcomes)
    notes = {
        (Path(cache).name, category): baseline_note(
            baselines_of(cache, part=part, categories=[category] if category else None)
        )
        for cache, category, _ in sets_of(caches)
    }
    with atomic_path(output / "comparison.md") as temporary:
        temporary.write_text(comparison_table(outcomes, notes), encoding="utf-8")
    return outcomes


def _image_difference(first: Sequence[Outcome], other: Sequence[Outcome]) -> str:
    """Return the mean difference of image AUROC over seeds, and its p value by paired bootstrap.

    Subjects are drawn. Only seeds that both ran with are compared; "–" where there is none.
    """
    common = {o.seed for o in first} & {o.seed for o in other}
    first, other = (
        sorted((o for o in side if o.seed in common), key=lambda o: o.seed)
        for side in (first, other)
    )
    if not common:
        return "–"

    def items(outcome: Outcome) -> dict[tuple[str, int], tuple[str, bool, float]]:
        return {(study, n): (subject, bad, s) for study, subject, n, bad, s in outcome.scores}

    ours, theirs = ([items(outcome) for outcome in side] for side in (first, other))
    keys = sorted(ours[0])
    if any(sorted(run) != keys for run in (*ours, *theirs)):
        return "–"
    subjects = sorted({ours[0][key][0] for key in keys})
    column = torch.tensor([subjects.index(ours[0][key][0]) for key in keys])
    labels = torch.tensor([ours[0][key][1] for key in keys])

    def metric(runs: list[dict[tuple[str, int], tuple[str, bool, float]]]) -> Metric:
        scores = [torch.tensor([run[key][2] for key in keys]) for run in runs]
        return lambda weights: torch.stack(
            [bootstrap_ranking(values, labels, column, weights)["auroc"] for values in scores]
        ).mean(dim=0)

    difference, p = paired_difference(
        metric(ours), metric(theirs), resamples(len(subjects)), subjects=(subjects, subjects)
    )
    if math.isnan(difference.value):
        return "–"
    return f"{difference.value:+.3f}" + ("" if math.isnan(p) else f" (p {p:.3f})")


def comparison_table(
    outcomes: Sequence[Outcome], below: Mapping[tuple[str, str], str] | None = None
) -> str:
    """Return Markdown: one table per set and category, then the average over all of them.

    Args:
        outcomes: the other methods are compared with the first.
        below: a sentence below the table of a set and category.
    """
    sets = list(dict.fromkeys((o.dataset, o.category) for o in outcomes))
    methods = list(dict.fromkeys(o.method for o in outcomes))
    header = [
        "method", "image AUROC", "image AP", "pixel AUROC", "pixel AP", "AUPRO",
        f"image AUROC of {methods[0]} minus this", "training, s", "latency, ms", "peak memory, MB",
        "stored, MB",
    ]  # fmt: skip
    text = ""
    for dataset, category in sets:
        rows = []
        for method in methods:
            its = [o for o in outcomes if (o.dataset, o.category) == (dataset, category)]
            first = [o for o in its if o.method == methods[0] and not o.note]
            own = [o for o in its if o.method == method]
            notes = [o.note for o in own if o.note]
            done = [o for o in own if not o.note]
            if not done:
                note = notes[0] if notes else "not asked for"
                rows.append([method, f"not run: {note}", *[""] * (len(header) - 2)])
                continue
            label = f"{method} ({len(done)} of {len(own)} seeds: {notes[0]})" if notes else method
            rows.append(
                [
                    label,
                    *(
                        mean_and_deviation(o.metrics[name] for o in done)
                        for name in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
                    ),
                    "" if method == methods[0] or not first else _image_difference(first, done),
                    mean_and_deviation((o.train_seconds for o in done), digits=0),
                    mean_and_deviation((o.latency_ms for o in done), digits=0),
                    mean_and_deviation((o.peak_mb for o in done), digits=0),
                    mean_and_deviation((o.size_mb for o in done), digits=1),
                ]
            )
        name = f"{dataset}, {category}" if category else dataset
        text += f"### {name}\n\n{markdown_table(header, rows)}\n"
        if below and (dataset, category) in below:
            text += f"{below[dataset, category]}\n"
    if len(sets) > 1:
        rows = [
            [
                method,
                *(
                    mean_and_deviation(
                        average_over_sets(
                            [o for o in outcomes if o.method == method], name, sets=len(sets)
                        )
                    )
                    for name in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
                ),
            ]
            for method in methods
        ]
        text += f"### Average of {len(sets)} sets\n\n{markdown_table(header[:6], rows)}\n"
    return text
