"""Charts as inline SVG that takes its colours and font from the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "MUTED", "Chart", "Look", "draw_chart", "look"]

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
    def stroke(self) -> str:
        """The colour as the page knows it."""
        return _COLOURS[self.colour]

    @property
    def linestyle(self) -> str | tuple[float, tuple[float, ...]]:
        """The pattern as Matplotlib takes it, in line widths."""
        return (0.0, tuple(float(n) / 1.5 for n in self.pattern.split())) if self.pattern else "-"


def look(index: int) -> Look:
    """Of a series; the first twenty differ."""
    return Look(_SERIES[index % len(_SERIES)], _PATTERNS[index % len(_PATTERNS)])


@dataclass(frozen=True)
class Chart:
    """A chart as the page shows it.

    Attributes:
        title: above it.
        svg: an SVG element with its alternative text.
        legend: name and look of each line.
        explanation: how to read it.
    """

    title: str
    svg: str
    legend: Sequence[tuple[str, Look]]
    explanation: str = ""


def _inline(svg: str, label: str) -> str:
    """Make Matplotlib's document an element of a page that has others of its kind."""
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


def draw_chart(
    title: str,
    label: str,
    draw: Callable[[Axes], None],
    *,
    legend: Sequence[tuple[str, Look]] = (),
    explanation: str = "",
) -> Chart:
    """Draw a chart.

    Args:
        title: of the chart.
        label: what it shows, for those who cannot see it; each chart of a page needs its own.
        draw: draws on the axes.
        legend: name and look of each line.
        explanation: how to read it.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    # "default" first, so that a reader's matplotlibrc changes nothing.
    with style.context(["default", {**_STYLE, "svg.hashsalt": ascii(label)}]):
        figure = Figure(figsize=(5.0, 3.1))
        draw(figure.add_axes((0.13, 0.15, 0.855, 0.825)))
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Chart(title, _inline(buffer.getvalue(), label), legend, explanation)
