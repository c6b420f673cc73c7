"""The charts of the page: curves, histograms of scores, training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multiad_med.evaluation.evaluation import Curve, Histogram
from multiad_med.evaluation.report.canvas import INK, MUTED, Chart, Look, drawing, look
from multiad_med.evaluation.words import Words
from multiad_med.utils.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "curve_panel", "histogram_panel", "panels", "training_panels"]

_POINTS = 300
_MARKED = 25
_BINS = (8, 30)
_CHANCE = Look(MUTED, "2 1.5")
_THRESHOLD = Look(INK, "8 2 2 2")
_LEFT, _RIGHT = 1e-2, 16.0  # beyond the ends of the FROC axis, which has no 0
_THIN = 1.2

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """How a kind of curve is drawn and explained.

    Attributes:
        title, x_label, y_label: of the chart.
        explanation: how to read it.
        needs: what is missing where there is no curve; empty where nobody misses it.
    """

    title: str
    x_label: str = ""
    y_label: str = ""
    explanation: str = ""
    needs: str = "it has no points"


def panels(words: Words) -> dict[str, Panel]:
    """Return the curve panels in order; a curve of another kind is drawn under its own name."""
    lesion = words.lesion
    return {
        "roc": Panel(
            "ROC",
            "normal items flagged (false positive rate)",
            "abnormal items flagged (sensitivity)",
            "The nearer to the upper left corner, the better.",
            "it needs both normal and abnormal items",
        ),
        "precision_recall": Panel(
            "Precision and recall",
            "abnormal items flagged (recall)",
            "flags that are right (precision)",
            "The nearer to the upper right corner, the better. Chance is the share of abnormal items.",
            "it needs abnormal items",
        ),
        "froc": Panel(
            "FROC",
            f"false positives per {words.scan}",
            f"{lesion}s found (sensitivity)",
            "The higher, the better. Each step is a threshold; nothing is interpolated.",
            f"it needs {lesion}s with masks",
        ),
        "reliability": Panel(
            "Reliability of the map",
            "map value",
            f"pixels of {lesion}s",
            f"How many of the foreground pixels of a map value are of {lesion}s. A map to be trusted "
            "rises from left to right. It states no probability, so it need not follow the diagonal.",
            "it needs pixels of known truth and a map in [0, 1]",
        ),
        "whole_slices": Panel(
            "What whole slices show",
            "slice",
            "score of the whole slice",
            "How unusual each slice is as a whole, whatever its places show. The volumes are those "
            "that reach the highest values. It is a part of a slice's score.",
            needs="",
        ),
    }


def _points(curve: Curve) -> tuple[Points, Points]:
    """Return a curve's finite points, thinned evenly along its length where there are very many."""
    x, y = (np.asarray(values, dtype=float) for values in (curve.x, curve.y))
    if x.shape != y.shape:
        raise InputError(f"Curve {curve.name!r} has {len(x)} x and {len(y)} y.")
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) > _POINTS:
        steps = sum(np.abs(np.diff(v)) / (np.ptp(v) or 1.0) for v in (x, y))
        length = np.concatenate([[0.0], np.cumsum(steps)])
        kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)))
        x, y = x[kept], y[kept]
    return x, y


def _drawable(curves: Iterable[Curve]) -> list[tuple[str, Points, Points]]:
    found = [(curve.name, *_points(curve)) for curve in curves]
    return [(name, x, y) for name, x, y in found if len(x)]


def _marker(x: Points) -> str | None:
    return "o" if len(x) <= _MARKED else None


def _unit_axis(axes: Axes, *which: str) -> None:
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    for name in which:
        getattr(axes, f"set_{name}lim")(-0.01, 1.02)
        getattr(axes, f"set_{name}ticks")(ticks, [f"{tick:g}" for tick in ticks])


def _rate_axis(axes: Axes) -> None:
    """Set the axis to false positives per scan from 1/8 to 8, 1 in the middle."""
    ticks = [2.0**power for power in range(-3, 4)]
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 1.05, ticks[-1] * 1.05)
    axes.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in ticks])


def curve_panel(
    kind: str, panel: Panel, curves: Iterable[Curve], *, prevalence: Mapping[str, float]
) -> Chart | None:
    """Return curves of one kind in a chart with legend and explanation.

    Args:
        kind: key of :func:`panels`; any other is drawn plainly.
        panel: how it is drawn and explained.
        curves: some may be empty or have points that are not finite.
        prevalence: share of abnormal items by curve name, drawn as chance beside precision.

    Returns:
        None when no curve has a point.

    Raises:
        InputError: when a curve's x and y differ in number.
    """
    series = _drawable(curves)
    if not series:
        return None
    label = f"{panel.title}: {', '.join(name for name, _, _ in series)}"
    with drawing(panel.title, label, panel.explanation) as (chart, axes):
        axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
        for index, (name, x, y) in enumerate(series):
            line = chart.line(name, look(index))
            if kind == "froc":  # what is found at a false-positive rate holds until the next
                x, y = np.r_[_LEFT, x.clip(min=_LEFT), _RIGHT], np.r_[0.0, y, y[-1]]
                axes.step(x, y, where="post", **line)
                continue
            if kind == "precision_recall" and x[0] == x.min():
                # Where scores are tied, the first threshold finds many; below its recall there is no
                # other.
                x, y = np.r_[0.0, x], np.r_[y[0], y]
            axes.plot(x, y, marker=_marker(x), **line)
        if kind == "roc":
            axes.plot([0, 1], [0, 1], linewidth=_THIN, **chart.line("chance", _CHANCE))
            _unit_axis(axes, "x", "y")
        elif kind == "precision_recall":
            for index, (name, _, _) in enumerate(series):
                if name in prevalence:
                    at, its = prevalence[name], Look(look(index).colour, _CHANCE.pattern)
                    line = chart.line(f"chance, {name}: {at:.3f}", its)
                    axes.axhline(at, linewidth=_THIN, **line)
            _unit_axis(axes, "x", "y")
        elif kind == "froc":
            _rate_axis(axes)
            _unit_axis(axes, "y")
        elif kind == "reliability":
            _unit_axis(axes, "x")
            axes.set_ylim(bottom=0)
            axes.axvline(0.5, linewidth=_THIN, **chart.line("threshold 0.5", _THRESHOLD))
    return chart


def training_panels(curves: Iterable[Curve]) -> list[Chart]:
    """Return a chart for each curve with points: epochs, iterations, losses and rates share no axis.

    Raises:
        InputError: when a curve's x and y differ in number.
    """
    charts = []
    for number, (name, x, y) in enumerate(_drawable(curves), start=1):
        with drawing(name, f"Training, curve {number}: {name}") as (chart, axes):
            axes.set_xlabel("epoch or step")
            axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
            if y.min() > 0 and y.max() > 20 * y.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("")
            axes.plot(x, y, marker=_marker(x), color=look(0).colour)
        charts.append(chart)
    return charts


def histogram_panel(level: str, histogram: Histogram) -> Chart | None:
    """Return scores of normal and abnormal items, each as a share of its class.

    Args:
        level: what is scored, for the title.
        histogram: values that are not finite are left out; a threshold that is not finite too.

    Returns:
        None when there is no score.
    """
    groups: list[tuple[str, Look, Points]] = []
    for index, name in enumerate(("normal", "abnormal")):
        scores = np.asarray(getattr(histogram, name), dtype=float)
        scores = scores[np.isfinite(scores)]
        if len(scores):
            groups.append((f"{name} ({len(scores):,})", look(index), scores))
    if not groups:
        return None
    thresholds = [histogram.threshold] if math.isfinite(histogram.threshold) else []
    everything = np.concatenate([*(scores for *_, scores in groups), thresholds])
    bins = int(np.clip(2 * math.sqrt(len(everything)), *_BINS))
    edges = np.histogram_bin_edges(everything, bins=bins).tolist()
    title = f"Scores of {level}"
    names = [*(name for name, _, _ in groups), *(f"threshold {at:.4g}" for at in thresholds)]
    with drawing(title, f"{title}, histogram: {', '.join(names)}") as (chart, axes):
        axes.set(xlabel="score", ylabel="share of its class, %")
        for name, its, scores in groups:
            weights = np.full(len(scores), 100 / len(scores))
            axes.hist(scores, edges, weights=weights, color=its.colour, alpha=0.22)
            line = chart.line(name, its)
            axes.hist(scores, edges, weights=weights, histtype="step", linewidth=1.6, **line)
        for at in thresholds:
            axes.axvline(at, linewidth=1.3, **chart.line(names[-1], _THRESHOLD))
    return chart
