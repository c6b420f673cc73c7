"""The tables of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from multiad_med.evaluation.evaluation import LevelRates
from multiad_med.evaluation.report.glossary import (
    HEADLINES,
    Metric,
    baseline_names,
    calibration_names,
    level_names,
    metric_names,
)
from multiad_med.evaluation.words import Words
from multiad_med.metrics import Estimate
from multiad_med.visualize.markup import Html, element

__all__ = [
    "STUDIES_SHOWN",
    "baseline_table",
    "calibration_table",
    "category_table",
    "columns_of",
    "headline_cards",
    "manifest_table",
    "metric_table",
    "scrolling_table",
    "study_table",
    "worst_first",
]

STUDIES_SHOWN = 200
"""Rows of the table of studies, at most."""

_MISSING = "\N{EN DASH}"
_BAR = 120


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all columns, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _described(name: str, words: Words) -> Metric:
    return metric_names(words).get(name, Metric(name))


def _level(name: str, words: Words) -> str:
    return level_names(words).get(name, (name, ""))[0]


def _number(value: float, metric: Metric) -> str:
    if not math.isfinite(value):
        return _MISSING
    return f"{value:.3g}\N{NO-BREAK SPACE}{metric.unit}" if metric.unit else f"{value:.3f}"


def _interval(estimate: Estimate, metric: Metric) -> str:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f"{_number(estimate.low, metric)} to {_number(estimate.high, metric)}"


def _bar(estimate: Estimate, metric: Metric) -> Html:
    """The value as a dot on its interval, from 0 to 1; nothing for what lies on another scale."""
    if metric.unit or not 0 <= estimate.value <= 1:
        return Html("")

    def line(low: float, high: float, class_: str) -> Html:
        ends = [f"{_BAR * min(1.0, max(0.0, end)):.1f}" for end in (low, high)]
        return element("line", class_=class_, x1=ends[0], x2=ends[1], y1="7", y2="7")

    drawn = [line(0, 1, "axis")]
    if _interval(estimate, metric):
        drawn.append(line(estimate.low, estimate.high, "range"))
    dot = element("circle", class_="value", cx=f"{_BAR * estimate.value:.1f}", cy="7", r="4")
    return element(
        "svg", *drawn, dot, class_="interval", viewBox=f"0 0 {_BAR} 14", aria_hidden="true"
    )


def scrolling_table(
    caption: str, head: Iterable[tuple[str, str]], *bodies: Html, class_: str
) -> Html:
    """A table that scrolls sideways where it is too wide.

    Args:
        caption: above it.
        head: name and class of each column.
        bodies: ``tbody`` elements.
        class_: of the table.
    """
    headings = [element("th", name, scope="col", class_=its) for name, its in head]
    table = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *headings)),
        *bodies,
        class_=class_,
    )
    return element("div", table, class_="scroll", role="region", tabindex="0", aria_label=caption)


def headline_cards(metrics: Mapping[str, Mapping[str, Estimate]], words: Words) -> Html | None:
    """The most telling metrics, large; None when none of them is defined."""
    found = {name: (level, e) for level, its in metrics.items() for name, e in its.items()}
    cards = []
    for name in HEADLINES:
        if name not in found or not math.isfinite(found[name][1].value):
            continue
        level, estimate = found[name]
        metric = _described(name, words)
        interval = _interval(estimate, metric)
        cards.append(
            element(
                "li",
                element("span", _level(level, words), class_="level"),
                element("span", metric.label, class_="name"),
                element("span", _number(estimate.value, metric), class_="value"),
                _bar(estimate, metric),
                element("small", f"95 %: {interval}" if interval else "no interval"),
            )
        )
    return element("ul", *cards, class_="cards") if cards else None


def _metric_row(name: str, estimate: Estimate, words: Words) -> Html:
    metric = _described(name, words)
    notes = [element("small", metric.explanation)] if metric.explanation else []
    if metric.warning:
        notes.append(element("small", metric.warning, class_="warning"))
    if not math.isfinite(estimate.value):
        notes.append(element("small", f"Undefined here: {metric.needs}.", class_="warning"))
    return element(
        "tr",
        element("th", metric.label, *notes, scope="row"),
        element("td", _number(estimate.value, metric), class_="number"),
        element("td", _interval(estimate, metric) or _MISSING, class_="number range"),
        element("td", _bar(estimate, metric), class_="plot"),
    )


def metric_table(metrics: Mapping[str, Mapping[str, Estimate]], words: Words) -> Html | None:
    """Every figure with its interval and what it means, by level; None without one."""
    bodies = []
    for level, its in metrics.items():
        heading, question = level_names(words).get(level, (level, ""))
        group = element("th", heading, element("small", question), colspan="4", scope="rowgroup")
        rows = [_metric_row(name, estimate, words) for name, estimate in its.items()]
        if rows:
            bodies.append(element("tbody", element("tr", group, class_="group"), *rows))
    if not bodies:
        return None
    head = [
        ("Figure", "text"),
        ("Value", "number"),
        ("95 % interval", "number"),
        ("From 0 to 1", "plot"),
    ]
    caption = f"Metrics by level, with 95 % intervals from resampling {words.patient}s."
    return scrolling_table(caption, head, *bodies, class_="metrics")


def category_table(categories: Mapping[str, Mapping[str, float | None]]) -> Html | None:
    """Metrics of each product and their mean; None where there are not several."""
    if not categories:
        return None
    metrics = columns_of(categories.values())
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(element("td", _shown(metrics.get(metric), 3), class_="number") for metric in metrics),
        )
        for name, metrics in categories.items()
    ]
    head = [("Category", "text")]
    head += [(metric.replace("_", " "), "number") for metric in metrics]
    caption = "Metrics of each category on its own, and their mean over the categories."
    return scrolling_table(caption, head, element("tbody", *rows), class_="wide")


def baseline_table(
    baselines: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, Mapping[str, Estimate]],
    words: Words,
) -> Html | None:
    """The model and the baselines in rows, the best of each column in bold; None without baselines."""
    names = columns_of(baselines.values())
    if not names:
        return None
    found = {name: (level, e.value) for level, its in metrics.items() for name, e in its.items()}
    model = {name: found[name][1] for name in names if name in found}
    methods: list[tuple[str, Mapping[str, float]]] = [("Model", model), *baselines.items()]

    def text(values: Iterable[float], name: str) -> str:
        return _number(
            max((v for v in values if math.isfinite(v)), default=math.nan), _described(name, words)
        )

    # Two that show the same digits are equally good.
    best = {name: text((its.get(name, math.nan) for _, its in methods), name) for name in names}
    rows = []
    for method, its in methods:
        looks_at = baseline_names(words).get(method)
        notes = [] if looks_at is None else [element("small", looks_at)]
        cells = []
        for name in names:
            shown = text([its.get(name, math.nan)], name)
            wins = shown == best[name] != _MISSING
            cells.append(
                element("td", element("strong", shown) if wins else shown, class_="number")
            )
        heading = element("th", method[:1].upper() + method[1:], *notes, scope="row")
        rows.append(element("tr", heading, *cells, class_="model" if its is model else "baseline"))
    head = [("Method", "text")]
    for name in names:
        level = f"{_level(found[name][0], words)}: " if name in found else ""
        head.append((level + _described(name, words).label, "number"))
    caption = (
        "The model beside baselines that look for no anomaly; the best of each column in bold."
    )
    return scrolling_table(caption, head, element("tbody", *rows), class_="baselines")


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f}\N{NO-BREAK SPACE}%" if math.isfinite(rate) else _MISSING


def _share(estimate: Estimate, items: int) -> list[str]:
    """A share of so many items, and its interval in small print."""
    if not math.isfinite(estimate.value):
        return [_MISSING, element("small", f"of {items:,}")]
    bounds = [_percent(end) for end in (estimate.low, estimate.high)]
    between = f", {bounds[0]} to {bounds[1]}" if math.isfinite(estimate.low) else ""
    return [_percent(estimate.value), element("small", f"of {items:,}{between}")]


def _rates_row(level: str, rates: LevelRates, words: Words) -> Html:
    label, judged = calibration_names(words).get(level, (level, ""))
    notes = [element("small", judged)]
    if rates.no_verdict:
        reason = rates.no_verdict
        notes.append(element("small", f"{reason[:1].upper()}{reason[1:]}."))
    if rates.approximate:
        notes.append(element("small", f"Approximate: {rates.approximate}."))
    threshold = _MISSING if rates.threshold is None else f"{rates.threshold:.3f}"
    held_out = _MISSING if rates.held_out is None else f"{rates.held_out:,}"
    cells: list[list[str]] = [
        [held_out],
        [threshold],
        [_percent(rates.nominal)],
        _share(rates.observed, rates.normal),
        _share(rates.sensitivity, rates.anomalous),
    ]
    return element(
        "tr",
        element("th", label, *notes, scope="row"),
        *(element("td", *cell, class_="number") for cell in cells),
    )


def calibration_table(calibration: Mapping[str, LevelRates], words: Words) -> Html | None:
    """Nominal beside observed rates of each level; None without a level."""
    if not calibration:
        return None
    head = [("Level", "text")]
    head += [
        (name, "number")
        for name in (
            "Held-out normals",
            "Threshold",
            "Nominal rate",
            "Normal ones flagged",
            "Abnormal ones flagged",
        )
    ]
    caption = (
        "Rates that the thresholds from held-out normals promise, and rates on these data with 95 % "
        "intervals."
    )
    rows = [
        _rates_row(level, calibration[level], words) for level in words.levels(list(calibration))
    ]
    return scrolling_table(caption, head, element("tbody", *rows), class_="calibration")


def _badness(row: Mapping[str, Any]) -> tuple[int, float]:
    def number(name: str) -> float:
        value = row.get(name)
        return value if isinstance(value, (int, float)) and math.isfinite(value) else 0.0

    if number("lesion_voxels") > 0:
        return 0, number("dice")
    return (1, number("score")) if row.get("anomalous") else (2, -number("score"))


def worst_first(studies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Studies with lesion masks, the lowest ``dice`` first; other abnormal ones, the lowest ``score``
    first; normal ones, the highest ``score`` first.
    """
    return sorted(studies, key=_badness)


def _shown(value: Any, digits: int) -> str:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return _MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


_OF_VOLUMES = {"slices", "abnormal_slices", "false_alarm_slices", "hd95_mm"}
_HEADINGS = {
    "p_value": "p-value",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "best_dice": "best Dice",
    "hd95_mm": "HD95, mm",
    "false_alarm_pixels": "false alarms: pixels",
    "false_alarm_slices": "false alarms: slices",
    "false_alarm_volume": "false alarm: study",
}


def _heading(name: str, words: Words) -> str:
    if words.images:
        name = {
            "study": "image",
            "lesion_voxels": "abnormal pixels",
            "flagged_voxels": "flagged pixels",
            "false_alarm_volume": "false alarm: image",
        }.get(name, name)
    return _HEADINGS.get(name, name.replace("_", " "))


def _study_cell(name: str, value: Any, *, large: bool) -> str:
    if name == "verdict":  # why there is none is told with the calibration
        return _shown(value, 3).partition(":")[0]
    if name == "false_alarm_pixels" and isinstance(value, float):
        return _percent(value)
    return _shown(value, 1 if large else 3)


def study_table(studies: Sequence[Mapping[str, Any]], words: Words) -> Html | None:
    """The worst 200 studies, without columns that say nothing of them; None without a study."""
    shown = worst_first(studies)[:STUDIES_SHOWN]
    hidden = set(_OF_VOLUMES) if words.images else set()
    if all(row.get("subject") == row.get("study") for row in shown):
        hidden.add("subject")
    head: list[tuple[str, str]] = []
    cells: list[list[Html]] = [[] for _ in shown]
    for name in columns_of(shown):
        values = [row.get(name) for row in shown]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        large = any(10 <= abs(v) < math.inf for v in numbers)
        texts = [_study_cell(name, value, large=large) for value in values]
        if name in hidden or all(text == _MISSING for text in texts):
            continue
        class_ = "number" if numbers else "text"
        for row, text in zip(cells, texts, strict=True):
            row.append(
                element("td", text, class_=class_) if head else element("th", text, scope="row")
            )
        head.append((_heading(name, words), class_))
    if not head:
        return None
    masks, studies_ = ("masks", "Images") if words.images else ("lesion masks", "Studies")
    caption = (
        f"{studies_}, worst first: those with {masks} from the lowest Dice on, other abnormal ones from "
        "the lowest score on, normal ones from the highest score on. False alarms are normal pixels"
        f"{'' if words.images else ', normal slices'} and normal {studies_.lower()} that are flagged."
    )
    body = element("tbody", *(element("tr", *row) for row in cells))
    return scrolling_table(caption, head, body, class_="wide")


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _leaves(value, f"{path} / {key}" if path else str(key))
    elif isinstance(content, (Mapping, list, tuple)):
        yield path, ", ".join(str(value) for value in content) or _MISSING
    else:
        yield path, _MISSING if content is None else str(content)


def manifest_table(manifest: Mapping[str, Any]) -> Html | None:
    """Every leaf of the nested manifest under its path; None without one."""
    if not manifest:
        return None
    rows = [
        element("tr", element("th", path, scope="row"), element("td", value))
        for path, value in _leaves(manifest)
    ]
    head = [("Entry", "text"), ("Value", "text")]
    return scrolling_table(
        "What the run was made with.", head, element("tbody", *rows), class_="manifest"
    )
