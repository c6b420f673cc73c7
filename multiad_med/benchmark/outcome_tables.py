"""Outcomes as tables: mean and deviation over seeds, per set and on average."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from multiad_med.benchmark.outcomes import Outcome
from multiad_med.evaluation.named_metrics import METRICS
from multiad_med.utils.atomic import atomic_path

__all__ = ["average_over_sets", "markdown_table", "mean_and_deviation", "write_outcomes"]

_COSTS = ("train_seconds", "latency_ms", "peak_mb", "size_mb")


def mean_and_deviation(values: Iterable[float | None], *, digits: int = 3) -> str:
    """Return such as ``0.912 ± 0.004``; a single value has no deviation; ``–`` without values."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return "–"
    mean = f"{statistics.fmean(known):.{digits}f}"
    return f"{mean} ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else mean


def average_over_sets(outcomes: Sequence[Outcome], metric: str, *, sets: int) -> list[float]:
    """Return a metric's mean over all ``sets`` sets and categories, for each seed that has them all."""
    by_seed: dict[int, list[float | None]] = {}
    for outcome in outcomes:
        by_seed.setdefault(outcome.seed, []).append(outcome.metrics.get(metric))
    return [
        statistics.fmean(known)
        for _, values in sorted(by_seed.items())
        if len(known := [v for v in values if v is not None]) == sets
    ]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_outcomes(path: str | Path, outcomes: Sequence[Outcome]) -> None:
    """Write one row per outcome as CSV, without the single scores."""
    columns = ["method", "dataset", "category", "seed", *METRICS, *_COSTS, "note"]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        for outcome in outcomes:
            writer.writerow(asdict(outcome) | outcome.metrics)
