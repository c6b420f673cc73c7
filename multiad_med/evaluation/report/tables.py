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
from multiad_med.evaluation.report.plain_table import MISSING, Cell, Group, Row, Table, head_of
from multiad_med.evaluation.threshold_table import HEAD, threshold_cells
from multiad_med.evaluation.words import Words
from multiad_med.metrics import Estimate
from multiad_med.self_test_result import SelfTest

__all__ = [
    "STUDIES_SHOWN",
    "baseline_table",
    "calibration_table",
    "category_table",
    "columns_of",
    "finding_table",
    "headline_cards",
    "kind_table",
    "manifest_table",
    "metric_table",
    "reaction_table",
    "study_table",
    "threshold_table",
    "worst_first",
]

STUDIES_SHOWN = 200
"""Rows of the table of studies, at most."""

_Metrics = Mapping[str, Mapping[str, Estimate]]


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all columns, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _described(name: str, words: Words) -> Metric:
    return metric_names(words).get(name, Metric(name))


def _level(name: str, words: Words) -> str:
    return level_names(words).get(name, (name, ""))[0]


def _with_levels(metrics: _Metrics) -> dict[str, tuple[str, Estimate]]:
    """Return level and value of each metric by its name."""
    return {name: (level, e) for level, its in metrics.items() for name, e in its.items()}


def _number(value: float, metric: Metric) -> str:
    if not math.isfinite(value):
        return MISSING
    return f"{value:.3g}\N{NO-BREAK SPACE}{metric.unit}" if metric.unit else f"{value:.3f}"


def _interval(estimate: Estimate, metric: Metric) -> str:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f"{_number(estimate.low, metric)} to {_number(estimate.high, metric)}"


def _bar(estimate: Estimate, metric: Metric) -> Estimate | None:
    """Return what is drawn from 0 to 1; None for another scale."""
    if metric.unit or not 0 <= estimate.value <= 1:
        return None
    if not _interval(estimate, metric):
        return Estimate(estimate.value, estimate.value, estimate.value)
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))


def headline_cards(metrics: _Metrics, words: Words) -> list[tuple[str, str, Row]]:
    """Return the most telling metrics that are defined: level, name, and cells as in their table."""
    found = _with_levels(metrics)
    return [
        (
            _level(level, words),
            _described(name, words).label,
            _metric_row(name, estimate, words)[1:],
        )
        for name in HEADLINES
        if name in found
        for level, estimate in [found[name]]
        if math.isfinite(estimate.value)
    ]


def _metric_row(name: str, estimate: Estimate, words: Words) -> Row:
    metric = _described(name, words)
    warnings = [metric.warning] if metric.warning else []
    if not math.isfinite(estimate.value):
        warnings.append(f"Undefined here: {metric.needs}.")
    return (
        Cell(metric.label, [metric.explanation] if metric.explanation else [], warnings),
        _number(estimate.value, metric),
        _interval(estimate, metric) or MISSING,
        Cell(bar=_bar(estimate, metric)),
    )


def metric_table(metrics: _Metrics, words: Words) -> Table | None:
    """Return every metric with its interval and what it means, by level; None without one."""
    groups = [
        Group(
            [_metric_row(name, estimate, words) for name, estimate in its.items()],
            *level_names(words).get(level, (level, "")),
        )
        for level, its in metrics.items()
        if its
    ]
    head = [
        ("Figure", "text"),
        ("Value", "number"),
        ("95 % interval", "number range"),
        ("From 0 to 1", "plot"),
    ]
    caption = f"Metrics by level, with 95 % intervals from resampling {words.patient}s."
    return Table(caption, "metrics", head, groups) if groups else None


def category_table(categories: Mapping[str, Mapping[str, float | None]]) -> Table | None:
    """Return metrics of each category, their mean, and of all; None where there are not several."""
    caption = (
        "Metrics of each category on its own, their mean over the categories, and pooled: of all images "
        "in one list, so that one threshold must do for all."
    )
    return _group_table("Category", categories, caption)


def kind_table(kinds: Mapping[str, Mapping[str, float | None]]) -> Table | None:
    """Return the AUROC of each kind of anomaly and its mean; None where there are not several."""
    caption = (
        "Images of each kind of anomaly against all normal images, and the mean over the kinds."
    )
    return _group_table("Kind", kinds, caption)


def _group_table(
    first: str, groups: Mapping[str, Mapping[str, float | None]], caption: str
) -> Table | None:
    if not groups:
        return None
    columns = columns_of(groups.values())
    rows = [
        [name, *(_shown(its.get(column), 3) for column in columns)] for name, its in groups.items()
    ]
    head = head_of(first, *(column.replace("_", " ") for column in columns))
    return Table(caption, "wide", head, [Group(rows)])


def baseline_table(
    baselines: Mapping[str, Mapping[str, float]], metrics: _Metrics, words: Words
) -> Table | None:
    """Return rows of model and baselines, each column's best in bold; None without baselines."""
    names = columns_of(baselines.values())
    if not names:
        return None
    found = _with_levels(metrics)
    methods: dict[str, Mapping[str, float]] = {
        "Model": {name: found[name][1].value for name in names if name in found},
        **baselines,
    }

    def text(values: Iterable[float], name: str) -> str:
        return _number(
            max((v for v in values if math.isfinite(v)), default=math.nan), _described(name, words)
        )

    # Two that show the same digits are equally good.
    best = {
        name: text((its.get(name, math.nan) for its in methods.values()), name) for name in names
    }
    rows: list[Row] = []
    for method, its in methods.items():
        looks_at = baseline_names(words).get(method)
        shown = {name: text([its.get(name, math.nan)], name) for name in names}
        rows.append(
            [
                Cell(method[:1].upper() + method[1:], [looks_at] if looks_at else []),
                *(Cell(t, bold=t == best[name] != MISSING) for name, t in shown.items()),
            ]
        )
    levels = {name: f"{_level(found[name][0], words)}: " for name in names if name in found}
    labels = [levels.get(name, "") + _described(name, words).label for name in names]
    caption = (
        "The model beside baselines that look for no anomaly; the best of each column in bold."
    )
    return Table(caption, "baselines", head_of("Method", *labels), [Group(rows)])


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f}\N{NO-BREAK SPACE}%" if math.isfinite(rate) else MISSING


def _share(estimate: Estimate, items: int) -> Cell:
    """Return a share of so many items, with its interval in small print."""
    of = f"of {items:,}"
    if math.isfinite(estimate.value) and math.isfinite(estimate.low):
        of += f", {_percent(estimate.low)} to {_percent(estimate.high)}"
    return Cell(_percent(estimate.value), [of])


def _rates_row(level: str, rates: LevelRates, words: Words) -> Row:
    label, judged = calibration_names(words).get(level, (level, ""))
    notes = [judged]
    if rates.no_verdict:
        reason = rates.no_verdict
        notes.append(f"{reason[:1].upper()}{reason[1:]}.")
    if rates.approximate:
        notes.append(f"Approximate: {rates.approximate}.")
    return (
        Cell(label, notes),
        MISSING if rates.held_out is None else f"{rates.held_out:,}",
        MISSING if rates.threshold is None else f"{rates.threshold:.3f}",
        _percent(rates.nominal),
        _share(rates.observed, rates.normal),
        _share(rates.sensitivity, rates.anomalous),
    )


def calibration_table(calibration: Mapping[str, LevelRates], words: Words) -> Table | None:
    """Return nominal and observed rates of each level; None without a level."""
    if not calibration:
        return None
    columns = ["Held-out normals", "Threshold", "Nominal rate"]
    columns += ["Normal ones flagged", "Abnormal ones flagged"]
    caption = (
        "Rates that the thresholds from held-out normals promise, and rates on these data with 95 % "
        "intervals."
    )
    levels = words.levels(list(calibration))
    rows = [_rates_row(level, calibration[level], words) for level in levels]
    return Table(caption, "calibration", head_of("Level", *columns), [Group(rows)])


def threshold_table(
    levels: Mapping[str, Sequence[Mapping[str, Any]]], words: Words
) -> Table | None:
    """Return rates in reach, their thresholds, and what each flags on these data; None without any."""
    names = calibration_names(words)
    groups = [
        Group([threshold_cells(row) for row in rows], names.get(level, (level, ""))[0])
        for level, rows in levels.items()
        if rows
    ]
    caption = "Rates to choose from: each one's threshold, and what it flags on these data."
    return Table(caption, "calibration", head_of(*HEAD), groups) if groups else None


def finding_table(found: SelfTest) -> Table:
    """Return the AUROC of images by kind and size of pseudo-anomaly."""

    def row(name: str, values: Iterable[float]) -> Row:
        return [name, *(f"{value:.2f}" for value in values)]

    sizes = found.sizes
    rows = [row(k, (found.slice_auroc(kind=k, size=s) for s in sizes)) for k in found.kinds]
    rows.append(row("mean", (found.slice_auroc(size=s) for s in sizes)))
    rows.append(row("mean, under the worst change", (found.worst_auroc(size=s) for s in sizes)))
    head = head_of("Pseudo-anomaly", *(f"{100 * size:g} % of the side" for size in sizes))
    caption = "AUROC of held-out normal images with a pseudo-anomaly against those without."
    return Table(caption, "findings", head, [Group(rows)])


def reaction_table(found: SelfTest) -> Table:
    """Return how scores of normal images react to changes that are no anomaly."""

    def share(value: float | None) -> str:
        return MISSING if value is None else f"{100 * value:.1f} %"

    rows = [("none", MISSING, share(found.flagged), MISSING)]
    rows += [
        (r.nuisance, f"{r.auroc:.2f}", share(r.flagged), "yes" if r.reacts else "no")
        for r in found.reactions
    ]
    head = head_of("Change", "AUROC", "Called anomalous", "Reacts")
    caption = (
        "Changed held-out normal images against unchanged ones; an AUROC of 0.5 is no reaction."
    )
    return Table(caption, "reactions", head, [Group(rows)])


def _badness(row: Mapping[str, Any]) -> tuple[int, float]:
    def number(name: str) -> float:
        value = row.get(name)
        return value if isinstance(value, (int, float)) and math.isfinite(value) else 0.0

    if number("lesion_voxels") > 0:
        return 0, number("dice")
    return (1, number("score")) if row.get("anomalous") else (2, -number("score"))


def worst_first(studies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort studies: with lesion masks, the lowest ``dice`` first; other abnormal ones, the lowest
    ``score`` first; normal ones, the highest ``score`` first.
    """
    return sorted(studies, key=_badness)


def _shown(value: Any, digits: int) -> str:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
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
    if name == "verdict":  # why there is none is said in the calibration table
        return _shown(value, 3).partition(":")[0]
    if name == "false_alarm_pixels" and isinstance(value, float):
        return _percent(value)
    return _shown(value, 1 if large else 3)


def study_table(studies: Sequence[Mapping[str, Any]], words: Words) -> Table | None:
    """Return the worst 200 studies, without columns that are empty; None without a study."""
    shown = worst_first(studies)[:STUDIES_SHOWN]
    hidden = set(_OF_VOLUMES) if words.images else set()
    if all(row.get("subject") == row.get("study") for row in shown):
        hidden.add("subject")
    head: list[tuple[str, str]] = []
    columns: list[list[str]] = []
    for name in columns_of(shown):
        values = [row.get(name) for row in shown]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        large = any(10 <= abs(v) < math.inf for v in numbers)
        texts = [_study_cell(name, value, large=large) for value in values]
        if name not in hidden and any(text != MISSING for text in texts):
            head.append((_heading(name, words), "number" if numbers else "text"))
            columns.append(texts)
    if not head:
        return None
    masks, studies_ = ("masks", "Images") if words.images else ("lesion masks", "Studies")
    caption = (
        f"{studies_}, worst first: those with {masks} from the lowest Dice on, other abnormal ones from "
        "the lowest score on, normal ones from the highest score on. False alarms are normal pixels"
        f"{'' if words.images else ', normal slices'} and normal {studies_.lower()} that are flagged."
    )
    return Table(caption, "wide", head, [Group(list(zip(*columns, strict=True)))])


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _leaves(value, f"{path} / {key}" if path else str(key))
    elif isinstance(content, (Mapping, list, tuple)):
        yield path, ", ".join(str(value) for value in content) or MISSING
    else:
        yield path, MISSING if content is None else str(content)


def manifest_table(manifest: Mapping[str, Any]) -> Table | None:
    """Return every leaf of the nested manifest under its path; None without one."""
    if not manifest:
        return None
    head = [("Entry", "text"), ("Value", "text")]
    return Table("What the run was made with.", "manifest", head, [Group(list(_leaves(manifest)))])
