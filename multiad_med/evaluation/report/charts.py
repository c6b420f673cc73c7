"""The charts of the page: curves, histograms of scores, training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multiad_med.evaluation.evaluation import Curve, Histogram
from multiad_med.evaluation.report.canvas import INK, MUTED, Chart, Look, draw_chart, look
from multiad_med.evaluation.words import Words
from multiad_med.utils.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Panel",
    "curve_panel",
    "histogram_panel",
    "panels",
    "training_panels",
]

_POINTS = 300
_MARKED = 25
_BINS = (8, 30)
_CHANCE = Look(MUTED, "2 1.5")
_THRESHOLD = Look(INK, "8 2 2 2")
_LEFT, _RIGHT = 1e-2, 16.0  # beyond the ends of the FROC axis

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """How a kind of curve is drawn and explained.

    Attributes:
        title, x_label, y_label: of the chart.
        explanation: how to read it.
        needs: what is missing where there is no curve.
    """

    title: str
    x_label: str = ""
    y_label: str = ""
    explanation: str = ""
    needs: str = "it has no points"


def panels(words: Words) -> dict[str, Panel]:
    """Curve panels in their order; a panel that is not here is drawn under its own name."""
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
            "rises from left to right; it states no probability, so that it need not follow the "
            "diagonal.",
            "it needs pixels of known truth and a map in [0, 1]",
        ),
    }


def _points(curve: Curve) -> tuple[Points, Points]:
    """Finite points of a curve, thinned evenly along its length where there are very many."""
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


def _plot(axes: Axes, its: Look, x: Points, y: Points) -> None:
    marker = "o" if len(x) <= _MARKED else None
    axes.plot(
        x, y, color=its.colour, linestyle=its.linestyle, linewidth=1.7, marker=marker, markersize=3
    )


def _step(axes: Axes, its: Look, x: Points, y: Points) -> None:
    """What is found at a false-positive rate holds until the next; a log axis has no 0."""
    x, y = np.r_[_LEFT, x.clip(min=_LEFT), _RIGHT], np.r_[0.0, y, y[-1]]
    axes.step(x, y, where="post", color=its.colour, linestyle=its.linestyle, linewidth=1.7)


def _unit_axis(axes: Axes, *which: str) -> None:
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    for name in which:
        getattr(axes, f"set_{name}lim")(-0.01, 1.02)
        getattr(axes, f"set_{name}ticks")(ticks, [f"{tick:g}" for tick in ticks])


def _rate_axis(axes: Axes) -> None:
    """False positives per scan from 1/8 to 8, 1 in the middle."""
    ticks = [2.0**power for power in range(-3, 4)]
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 1.05, ticks[-1] * 1.05)
    axes.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in ticks])


def curve_panel(
    name: str, panel: Panel, curves: Iterable[Curve], *, prevalence: Mapping[str, float]
) -> Chart | None:
    """Curves of one kind in a chart with legend and explanation.

    Args:
        name: key of :func:`panels`; another one is drawn plainly.
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
    if name == "precision_recall":
        # Where scores are tied, the first threshold finds many; below its recall it is all there is.
        series = [
            (label, np.r_[0.0, x], np.r_[y[0], y]) if x[0] == x.min() else (label, x, y)
            for label, x, y in series
        ]
    legend = [(label, look(i)) for i, (label, _, _) in enumerate(series)]
    chance = {
        label: (prevalence[label], Look(its.colour, _CHANCE.pattern))
        for label, its in legend
        if name == "precision_recall" and label in prevalence
    }
    lines = list(legend)
    if name == "roc":
        lines.append(("chance", _CHANCE))
    if name == "reliability":
        lines.append(("threshold 0.5", _THRESHOLD))
    lines += [(f"chance, {label}: {at:.3f}", its) for label, (at, its) in chance.items()]

    def draw(axes: Axes) -> None:
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
        for (_, x, y), (_, its) in zip(series, legend, strict=True):
            (_step if name == "froc" else _plot)(axes, its, x, y)
        for at, its in chance.values():
            axes.axhline(at, color=its.colour, linestyle=its.linestyle, linewidth=1.2)
        if name == "roc":
            axes.plot([0, 1], [0, 1], color=MUTED, linestyle=_CHANCE.linestyle, linewidth=1.2)
        if name in ("roc", "precision_recall"):
            _unit_axis(axes, "x", "y")
        elif name == "froc":
            _rate_axis(axes)
            _unit_axis(axes, "y")
        elif name == "reliability":
            _unit_axis(axes, "x")
            axes.set_ylim(bottom=0)
            axes.axvline(0.5, color=INK, linestyle=_THRESHOLD.linestyle, linewidth=1.2)

    label = f"{panel.title}: {', '.join(label for label, _ in legend)}"
    return draw_chart(panel.title, label, draw, legend=lines, explanation=panel.explanation)


def training_panels(curves: Iterable[Curve]) -> list[Chart]:
    """A chart for each curve with points, since epochs, iterations, losses and rates share no axis.

    Raises:
        InputError: when a curve's x and y differ in number.
    """
    panels = []
    for number, (name, x, y) in enumerate(_drawable(curves)):

        def draw(axes: Axes, x: Points = x, y: Points = y) -> None:
            axes.set_xlabel("epoch or step")
            axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
            if y.min() > 0 and y.max() > 20 * y.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("")
            _plot(axes, look(0), x, y)

        panels.append(draw_chart(name, f"Training, curve {number + 1}: {name}", draw))
    return panels


def histogram_panel(level: str, histogram: Histogram) -> Chart | None:
    """Scores of normal and abnormal items, each as a share of its class.

    Args:
        level: what is scored, for the title.
        histogram: values that are not finite are left out; a threshold that is not finite too.

    Returns:
        None when there is no score.
    """
    groups: list[tuple[str, Look, Points]] = []
    for index, (name, values) in enumerate(
        (("normal", histogram.normal), ("abnormal", histogram.abnormal))
    ):
        scores = np.asarray(values, dtype=float)
        scores = scores[np.isfinite(scores)]
        if len(scores):
            groups.append((f"{name} ({len(scores):,})", look(index), scores))
    if not groups:
        return None
    thresholds = [histogram.threshold] if math.isfinite(histogram.threshold) else []
    everything = np.concatenate([*(scores for *_, scores in groups), thresholds])
    bins = int(np.clip(2 * math.sqrt(len(everything)), *_BINS))
    edges = np.histogram_bin_edges(everything, bins=bins).tolist()

    def draw(axes: Axes) -> None:
        axes.set_xlabel("score")
        axes.set_ylabel("share of its class, %")
        for _, its, scores in groups:
            weights = np.full(len(scores), 100 / len(scores))
            axes.hist(scores, edges, weights=weights, color=its.colour, alpha=0.22)
            axes.hist(
                scores,
                edges,
                weights=weights,
                histtype="step",
                color=its.colour,
                linestyle=its.linestyle,
                linewidth=1.6,
            )
        for at in thresholds:
            axes.axvline(at, color=INK, linestyle=_THRESHOLD.linestyle, linewidth=1.3)

    legend = [(name, its) for name, its, _ in groups]
    legend += [(f"threshold {at:.4g}", _THRESHOLD) for at in thresholds]
    title = f"Scores of {level}"
    label = f"{title}, histogram: {', '.join(name for name, _ in legend)}"
    return draw_chart(title, label, draw, legend=legend)
