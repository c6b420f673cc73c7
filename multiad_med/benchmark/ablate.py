"""Table 4 of the paper on your own data: SE, discriminator and fusion, each on and off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from multiad_med.benchmark.compare import sets_of
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
from multiad_med.networks import FusionMode
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.choose import choose, usable_device

__all__ = ["STUDIES", "ablate", "ablation_table"]

STUDIES: dict[int, tuple[bool, bool, bool]] = dict(
    enumerate([(se, d, fusion) for se, d, fusion in product([True, False], repeat=3)], start=1)
)
"""``(SE, discriminator, fusion)`` of each study, in the order of the paper's Table 4."""


def _build(settings: Settings, name: str, device: str) -> Detector:
    return MultiADDetector(settings, name=name, device=device)


def _without_fusion(detector: Any, held_out: SliceCache) -> None:
    detector.fuse(FusionMode.SUM, held_out)


def ablate(
    caches: Sequence[str | Path],
    output: str | Path,
    *,
    settings: Settings,
    adversarial_weight: float = 0.01,
    seeds: Sequence[int] = (0,),
    part: Part | str = Part.ALL,
    device: str = "cpu",
) -> list[Outcome]:
    """Run the eight studies of the paper's Table 4; write ``ablation.csv`` and ``ablation.md``.

    Without fusion the stages' maps are summed as they are. As fusion takes part in no training, a
    study and its twin without fusion share one trained network. What is in ``output`` already is not
    run again.

    Args:
        caches: folders of `multiad prepare`; each category of an industrial set is trained alone.
        output: folder for the outcomes and tables.
        settings: what the studies have in common.
        adversarial_weight: lambda of Eq. 12 where the discriminator is on.
        seeds: one training each.
        part: of the test splits; see :class:`Part`.
        device: where to run.

    Raises:
        InputError: on an unknown part or device.
        CacheError: when a folder holds no cache.
    """
    usable_device(device)
    part = choose(Part, part, what="part")
    numbers = {switches: number for number, switches in STUDIES.items()}
    jobs: list[Job] = []
    for cache, category, _ in sets_of(caches):
        for se, discriminator in product([True, False], repeat=2):
            study = replace(
                settings,
                se=se,
                adversarial_weight=adversarial_weight if discriminator else 0.0,
            )
            name = str(numbers[se, discriminator, True])
            for seed in seeds:
                jobs.append(
                    Job(
                        name,
                        partial(_build, study, name, device),
                        cache,
                        category,
                        seed,
                        part,
                        device,
                        variants=((str(numbers[se, discriminator, False]), _without_fusion),),
                    )
                )
    outcomes = run_jobs(jobs, Path(output) / "outcomes")
    write_outcomes(Path(output) / "ablation.csv", outcomes)
    with atomic_path(Path(output) / "ablation.md") as temporary:
        text = ablation_table(outcomes)
        for cache, category, _ in sets_of(caches):
            found = baselines_of(cache, part=part, categories=[category] if category else None)
            text += f"\n{f'{Path(cache).name} {category}'.strip()}. {baseline_note(found)}"
        temporary.write_text(text, encoding="utf-8")
    return outcomes


def ablation_table(outcomes: Sequence[Outcome]) -> str:
    """Return the paper's Table 4 in Markdown: image AUROC and pixel AUROC per set and on average."""
    sets = list(dict.fromkeys((o.dataset, o.category) for o in outcomes))
    names = [f"{dataset} {category}".strip() for dataset, category in sets]
    columns = [*names, "average"] if len(sets) > 1 else names
    header = ["study", "SE", "D", "fusion"]
    header += [f"{name}, {level}" for name in columns for level in ("image", "pixel")]
    rows = []
    for number, switches in STUDIES.items():
        own = [o for o in outcomes if o.method == str(number)]
        cells = [str(number), *("✓" if on else "–" for on in switches)]
        for dataset, category in sets:
            its = [o for o in own if (o.dataset, o.category) == (dataset, category)]
            cells += [
                mean_and_deviation(o.metrics.get(metric) for o in its)
                for metric in ("image_auroc", "pixel_auroc")
            ]
        if len(sets) > 1:
            cells += [
                mean_and_deviation(average_over_sets(own, metric, sets=len(sets)))
                for metric in ("image_auroc", "pixel_auroc")
            ]
        rows.append(cells)
    return markdown_table(header, rows)
