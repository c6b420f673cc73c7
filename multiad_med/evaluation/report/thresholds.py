"""The report's table of rates to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multiad_med.evaluation.report.glossary import calibration_names
from multiad_med.evaluation.threshold_table import HEAD, threshold_cells
from multiad_med.evaluation.words import Words
from multiad_med.visualize.markup import Html, element

__all__ = ["threshold_table"]


def threshold_table(levels: Mapping[str, Sequence[Mapping[str, Any]]], words: Words) -> Html:
    """Rates in reach, their thresholds, and what each flags on these data; empty without any."""
    bodies, names = [], calibration_names(words)
    for level, rows in levels.items():
        heading = element("th", names.get(level, (level, ""))[0], colspan="4")
        lines = [
            element("tr", *(element("td", cell, class_="number") for cell in threshold_cells(row)))
            for row in rows
        ]
        if lines:
            bodies.append(element("tbody", element("tr", heading, class_="group"), *lines))
    if not bodies:
        return Html("")
    caption = "Rates to choose from: each one's threshold, and what it flags on these data."
    table = element(
        "table",
        element("caption", element("span", caption)),
        element(
            "thead",
            element("tr", *(element("th", name, scope="col", class_="number") for name in HEAD)),
        ),
        *bodies,
        class_="calibration",
    )
    return element("div", table, class_="scroll", role="region", tabindex="0", aria_label=caption)
