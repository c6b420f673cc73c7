"""Charts as inline SVG that takes its colours and font from the page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "MUTED", "Chart", "Look", "drawing", "look"]

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
    "font.family": "DejaVu Sans",  # measured with it; the page shows its own
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "lines.linewidth": 1.7,
    "lines.markersize": 3,
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
        pattern: lengths on and off as in SVG, empty for a solid line.
    """

    colour: str
    pattern: str = ""

    @property
    def stroke(self) -> str:
        """The page's name of the colour."""
        return _COLOURS[self.colour]


def look(index: int) -> Look:
    """Return the look of a series; the first twenty differ."""
    return Look(_SERIES[index % len(_SERIES)], _PATTERNS[index % len(_PATTERNS)])


@dataclass
class Chart:
    """A chart as the page shows it.

    Attributes:
        title: above it.
        explanation: how to read it.
        legend: name and look of each line.
        svg: an SVG element with its alternative text.
    """

    title: str
    explanation: str = ""
    legend: list[tuple[str, Look]] = field(default_factory=list)
    svg: str = ""

    def line(self, name: str, its: Look) -> dict[str, Any]:
        """Add a line to the legend, and return Matplotlib's options for it."""
        self.legend.append((name, its))
        dashes = tuple(float(n) / 1.5 for n in its.pattern.split())
        return {"color": its.colour, "linestyle": (0, dashes) if dashes else "-"}


def _inline(svg: str, label: str) -> str:
    """Make Matplotlib's document an element of a page that has several of them."""
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    root = ElementTree.fromstring(svg)
    for defs in root.findall("{*}defs"):
        for style in defs.findall("{*}style"):  # would be for all elements of the page
            defs.remove(style)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        node.attrib = {name.rpartition("}")[2]: value for name, value in node.items()}
        if node.tag == "g":  # every chart has a figure_1
            node.attrib.pop("id", None)
    box = root.attrib["viewBox"]
    root.attrib = {"class": "chart", "role": "img", "aria-label": label, "viewBox": box}
    ElementTree.indent(root, "")
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def drawing(title: str, label: str, explanation: str = "") -> Iterator[tuple[Chart, Axes]]:
    """Yield a chart and the axes to draw it on; the chart has its SVG when the context ends.

    Args:
        title: above it.
        label: what it shows, for those who cannot see it; each chart of a page needs its own.
        explanation: how to read it.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    chart, buffer = Chart(title, explanation), io.StringIO()
    # "default" first, so that a reader's matplotlibrc changes nothing.
    with style.context(["default", {**_STYLE, "svg.hashsalt": ascii(label)}]):
        figure = Figure(figsize=(5.0, 3.1))
        yield chart, figure.add_axes((0.13, 0.15, 0.855, 0.825))
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    chart.svg = _inline(buffer.getvalue(), label)
