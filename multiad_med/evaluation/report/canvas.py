"""Inline SVG that takes its colours and font from the page, and the legend below it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiad_med.visualize.markup import Html, element

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "MUTED", "Look", "chart_figure", "look"]

# Matplotlib needs colours while it draws; these stand for the page's variables, light or dark.
_COLOURS = {
    "#000001": "var(--ink)",
    "#000002": "var(--muted)",
    "#000003": "var(--grid)",
    "#000011": "var(--c1)",
    "#000012": "var(--c2)",
    "#000013": "var(--c3)",
    "#000014": "var(--c4)",
    "#000015": "var(--c5)",
}
INK, MUTED, _GRID, *_SERIES = _COLOURS
_PATTERNS = ("", "6 2", "2 1.5", "8 2 2 2")
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True)
class Look:
    """How a line is drawn: a colour for the screen, dashes for those who see or print grey.

    Attributes:
        colour: :data:`INK`, :data:`MUTED`, or that of a series.
        pattern: lengths on and off as in SVG, empty for a whole line.
    """

    colour: str
    pattern: str = ""

    @property
    def linestyle(self) -> str | tuple[float, tuple[float, ...]]:
        """The pattern as Matplotlib takes it, in line widths."""
        return (0.0, tuple(float(n) / 1.5 for n in self.pattern.split())) if self.pattern else "-"


def look(index: int) -> Look:
    """Of a series; the first twenty differ."""
    return Look(_SERIES[index % len(_SERIES)], _PATTERNS[index % len(_PATTERNS)])


def _svg(label: str, draw: Callable[[Axes], None]) -> Html:
    from matplotlib import style
    from matplotlib.figure import Figure

    # "default" first, so that a reader's matplotlibrc changes nothing.
    with style.context(["default", {**_STYLE, "svg.hashsalt": ascii(label)}]):
        figure = Figure(figsize=(5.0, 3.1))
        axes = figure.add_axes((0.13, 0.15, 0.855, 0.825))
        draw(axes)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    written = buffer.getvalue()
    box = re.findall(r'viewBox="([^"]*)"', written)[0]
    # The style is for all elements, so of the page; ids of groups would occur in every chart.
    inner = written.split("</style>\n </defs>", 1)[1].rsplit("</svg>", 1)[0]
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)
    inner = re.sub(r"font-family: [^;]*; ", "", inner).replace("xlink:href", "href")
    inner = re.sub(r"\s*\n\s*", "\n", inner)
    for stand_in, colour in _COLOURS.items():
        inner = inner.replace(stand_in, colour)
    return element("svg", Html(inner), class_="chart", role="img", aria_label=label, viewBox=box)


def _sample(its: Look) -> Html:
    line = element(
        "line",
        x1="0",
        y1="4",
        x2="26",
        y2="4",
        stroke_width="2.5",
        stroke_dasharray=its.pattern or "none",
        style=f"stroke: {_COLOURS[its.colour]}",
    )
    return element("svg", line, viewBox="0 0 26 8", aria_hidden="true")


def chart_figure(
    title: str,
    label: str,
    draw: Callable[[Axes], None],
    *,
    legend: Sequence[tuple[str, Look]],
    explanation: str = "",
) -> Html:
    """A chart under its title, with legend and explanation below.

    Args:
        title: of the chart.
        label: what it shows, for those who cannot see it; each chart of a page needs its own.
        draw: draws on the axes.
        legend: name and look of each line.
        explanation: how to read it.
    """
    entries = [element("li", _sample(its), name) for name, its in legend]
    return element(
        "figure",
        element("h3", title),
        _svg(label, draw),
        *([element("ul", *entries, class_="legend")] if entries else []),
        *([element("figcaption", explanation)] if explanation else []),
    )
