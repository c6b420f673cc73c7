"""The page: what was found, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from multiad_med.evaluation.evaluation import Evaluation
from multiad_med.evaluation.report import tables
from multiad_med.evaluation.report.charts import (
    Panel,
    curve_panel,
    histogram_panel,
    panels,
    training_panels,
)
from multiad_med.evaluation.report.pictures import ExampleFigure, example_figure
from multiad_med.evaluation.report.plain_table import MISSING
from multiad_med.utils.templates import render
from multiad_med.visualize.colours import scale_colours

__all__ = ["render_page"]

_EXAMPLES = 6


def _counted(number: int, name: str) -> str:
    if number == 1:
        name = name.removesuffix("s") if not name.endswith("ies") else f"{name[:-3]}y"
    return f"{number:,} {name.replace('_', ' ')}"


def _counts(evaluation: Evaluation) -> Iterator[str]:
    """Yield what was evaluated; for images, without what equals their number or only volumes have."""
    words = evaluation.words
    hidden = {"studies", "studies_without_distance"} if words.images else set()
    hidden |= set() if words.patients else {"patients"}
    for name, number in evaluation.counts.items():
        if name not in hidden and (number or name != "studies_without_distance"):
            yield _counted(number, words.shown(name))


def _curves(evaluation: Evaluation) -> dict[str, Any]:
    """Return the charts that can be drawn, and the panels of those that cannot."""
    words = evaluation.words
    known = panels(words)
    prevalence = {
        words.shown(level): len(scores.abnormal) / (len(scores.abnormal) + len(scores.normal))
        for level, scores in evaluation.histograms.items()
        if scores.abnormal
    }
    drawn, missing = [], []
    for name in dict.fromkeys([*known, *evaluation.curves]):
        panel = known.get(name, Panel(name))
        curves = [replace(c, name=words.shown(c.name)) for c in evaluation.curves.get(name, ())]
        chart = curve_panel(name, panel, curves, prevalence=prevalence)
        if chart is not None:
            drawn.append(chart)
        elif panel.needs:
            missing.append(panel)
    return {"curves": drawn, "no_curves": missing}


def _examples(evaluation: Evaluation) -> dict[str, list[ExampleFigure]]:
    found: dict[str, list[ExampleFigure]] = {"Best": [], "Worst": []}
    for example in evaluation.examples:
        chosen = found["Best" if example.best else "Worst"]
        if len(chosen) < _EXAMPLES:
            chosen.append(example_figure(example, evaluation.words))
    return found


def render_page(evaluation: Evaluation, *, title: str) -> str:
    """Return one HTML page that loads nothing, for light and dark screens and for paper.

    Args:
        evaluation: what is shown.
        title: of the page.

    Raises:
        ValueError: when a curve or an example has parts of different sizes.
    """
    words, found = evaluation.words, evaluation.self_test
    histograms = [
        histogram_panel(words.shown(level), scores)
        for level, scores in evaluation.histograms.items()
    ]
    return render(
        "evaluation/report/page.html.jinja",
        title=title,
        words=words,
        counts=list(_counts(evaluation)),
        remarks=evaluation.remarks,
        missing=MISSING,
        cards=tables.headline_cards(evaluation.metrics, words),
        metrics=tables.metric_table(evaluation.metrics, words),
        categories=tables.category_table(evaluation.categories),
        kinds=tables.kind_table(evaluation.kinds),
        baselines=tables.baseline_table(evaluation.baselines, evaluation.metrics, words),
        **_curves(evaluation),
        histograms=[chart for chart in histograms if chart is not None],
        calibration=tables.calibration_table(evaluation.calibration, words),
        thresholds=tables.threshold_table(evaluation.thresholds_table, words),
        self_test=found,
        self_test_tables=found and [tables.finding_table(found), tables.reaction_table(found)],
        scale=scale_colours(),
        examples=_examples(evaluation),
        training=training_panels(evaluation.training),
        studies=tables.study_table(evaluation.studies, words),
        more_studies=len(evaluation.studies) - tables.STUDIES_SHOWN,
        manifest=tables.manifest_table(evaluation.manifest),
    )
