"""The main metrics of an evaluation in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from multiad_med.evaluation.baselines import BASELINE_METRICS
from multiad_med.evaluation.words import Words

__all__ = ["print_summary"]


_OF_CATEGORIES = {
    "image_auroc": "",
    "pixel_auroc": "",
    "pixel_ap": "",
    "aupro": "",
    "observed_rate": "normal flagged",
    "sensitivity": "abnormal flagged",
}
"""Metrics of a category, and the names of those that are no main metrics."""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None, bounds: Sequence[float | None] = ()) -> str:
    if value is None:
        return "–"
    between = " to ".join(f"{100 * end:.2f}" for end in bounds if end is not None)
    return f"{100 * value:.2f} %" + (f" ({between})" if between else "")


def _rates(calibration: Mapping[str, Mapping[str, Any]], words: Words) -> Table:
    """Return nominal and observed rates of each level, or why it has no verdict."""
    table = Table(title="False alarms promised and observed (95 % interval)")
    table.add_column("level")
    for name in ("held-out normals", "threshold", "nominal", "observed", "abnormal found"):
        table.add_column(name, justify="right")
    for level in words.levels(list(calibration)):
        its = calibration[level]
        held_out, threshold = its["held_out_normals"], its["threshold"]
        table.add_row(
            words.shown(level) + (" (approximate)" if its["approximate"] else ""),
            "–" if held_out is None else str(held_out),
            its["no_verdict"] if threshold is None else f"{threshold:.3f}",
            _percent(its["nominal_rate"]),
            _percent(its["observed_rate"], its["observed_rate_95"]),
            _percent(its["sensitivity"], its["sensitivity_95"]),
        )
    return table


def _categories(
    categories: Mapping[str, Mapping[str, float | None]], names: Mapping[str, str]
) -> Table:
    """Return the main metrics of each category, their mean, and those of all pooled."""
    table = Table(title="By category; pooled: one threshold for all")
    table.add_column("category", no_wrap=True, overflow="fold")
    columns = [name for name in _OF_CATEGORIES if name in next(iter(categories.values()))]
    for name in columns:
        table.add_column(names.get(name, _OF_CATEGORIES[name]), justify="right")
    for category, its in categories.items():
        table.add_row(category, *(_number(its[name]) for name in columns))
    return table


def print_summary(metrics: Mapping[str, Any], console: Console, *, title: str) -> None:
    """Print metrics with their intervals, rates at the thresholds, baselines, categories, and remarks.

    Args:
        metrics: content of ``metrics.json``.
        console: where to print.
        title: of the table.
    """
    words = Words(**metrics["words"])
    names = words.metrics()
    table = Table(title=title)
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, label in names.items():
        if name in metrics:
            low_high = metrics["intervals_95"].get(name)
            interval = "–" if low_high is None else " to ".join(_number(v) for v in low_high)
            table.add_row(label, _number(metrics[name]), interval)
    baselines = Table(title=f"What trivial baselines reach on the same {words.slice}s")
    baselines.add_column("")
    for name in BASELINE_METRICS:
        baselines.add_column(names[name], justify="right")
    baselines.add_row("this model", *(_number(metrics.get(name)) for name in BASELINE_METRICS))
    for baseline, values in metrics["baselines"].items():
        baselines.add_row(baseline, *(_number(values.get(name)) for name in BASELINE_METRICS))
    console.print(table, _rates(metrics["calibration"], words), baselines)
    if metrics["categories"]:
        console.print(_categories(metrics["categories"], names))
    for remark in metrics["remarks"]:
        console.print(f"[bold]Note:[/bold] {remark}", highlight=False)
