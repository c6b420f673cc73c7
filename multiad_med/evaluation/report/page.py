"""The page: what was found, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files

from multiad_med.evaluation.evaluation import Evaluation, Example
from multiad_med.evaluation.report.charts import (
    Panel,
    curve_panel,
    histogram_panel,
    panels,
    side_by_side,
    training_panels,
)
from multiad_med.evaluation.report.pictures import example_figure
from multiad_med.evaluation.report.self_tests import finding_table, reaction_table
from multiad_med.evaluation.report.tables import (
    STUDIES_SHOWN,
    baseline_table,
    calibration_table,
    category_table,
    headline_cards,
    manifest_table,
    metric_table,
    study_table,
)
from multiad_med.evaluation.report.thresholds import threshold_table
from multiad_med.evaluation.words import Words
from multiad_med.visualize.markup import Html, element, fragment
from multiad_med.visualize.scale_bar import scale_bar

__all__ = ["render_page"]

_EXAMPLES = 6


def _lead(*words: str) -> Html:
    return element("p", *words, class_="lead")


def _absent(words: str) -> Html:
    return element("p", words, class_="absent")


def _counted(number: int, name: str) -> str:
    if number == 1:
        name = name.removesuffix("s") if not name.endswith("ies") else f"{name[:-3]}y"
    return f"{number:,} {name.replace('_', ' ')}"


def _counts(evaluation: Evaluation) -> Iterator[str]:
    """What was evaluated; of images not what is the same for each, or what only volumes have."""
    words = evaluation.words
    hidden = {"studies", "studies_without_distance"} if words.images else set()
    hidden |= set() if words.patients else {"patients"}
    for name, number in evaluation.counts.items():
        if name not in hidden and (number or name != "studies_without_distance"):
            yield _counted(number, words.shown(name))


def _header(evaluation: Evaluation, title: str) -> Html:
    counts = " · ".join(_counts(evaluation))
    return fragment(
        element("h1", title),
        *([element("p", counts, class_="counts")] if counts else []),
        element(
            "p",
            "How well an anomaly detector tells abnormal from normal on a labelled test set. The "
            "detector learnt from normal data alone; its anomaly map says how unusual each pixel is, and "
            "0.5 in the map is the threshold, set on normal data that were held out from training. ",
            element("strong", "For research, not for diagnostic use."),
        ),
    )


def _remarks(evaluation: Evaluation) -> Html:
    if not evaluation.remarks:
        return _absent("The evaluation has no remarks that must be read first.")
    return element(
        "div",
        element("h2", "Read this first", id="remarks"),
        element("ul", *(element("li", remark) for remark in evaluation.remarks)),
        class_="remarks",
        role="note",
        aria_labelledby="remarks",
    )


def _metrics(evaluation: Evaluation) -> Html:
    words = evaluation.words
    table = metric_table(evaluation.metrics, words)
    if table is None:
        return _absent("No metrics: the evaluation has none.")
    unnamed = "An image of no named patient counts as a patient of its own. "
    return fragment(
        _lead(
            "A 95 % interval holds the middle 95 % of the values that a figure takes when "
            f"{words.patient}s are drawn anew with replacement (bootstrap): how far it depends on which "
            f"{words.patient}s happened to be in the test set. "
            f"{unnamed if words.images and words.patients else ''}A dash stands for a figure that is "
            "undefined on these data, or an interval that was not computed."
        ),
        table,
        *([categories] if (categories := category_table(evaluation.categories)) else []),
    )


def _baselines(evaluation: Evaluation) -> Html:
    words = evaluation.words
    table = baseline_table(evaluation.baselines, evaluation.metrics, words)
    if table is None:
        return _absent("No trivial baselines: none were evaluated.")
    return fragment(
        _lead(
            "A trivial baseline looks for no anomaly. Each is taken in the direction that does better on "
            "these very data. Where one comes near the model, the test set can be solved without finding "
            f"{words.lesion}s, and the model's figure proves little."
        ),
        table,
    )


def _curves(evaluation: Evaluation) -> Html:
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
        if chart is None:
            missing.append(_absent(f"No chart “{panel.title}”: {panel.needs}."))
        else:
            drawn.append(chart)
    return fragment(*([side_by_side(drawn)] if drawn else []), *missing)


def _histograms(evaluation: Evaluation) -> Html:
    drawn = [
        chart
        for level, scores in evaluation.histograms.items()
        if (chart := histogram_panel(evaluation.words.shown(level), scores)) is not None
    ]
    if not drawn:
        return _absent("No histograms: there are no scores.")
    return fragment(
        _lead(
            "The less the two classes overlap, the better. Normal items on the right of the threshold "
            "are false alarms; abnormal items on its left are missed."
        ),
        side_by_side(drawn),
    )


def _calibration(evaluation: Evaluation) -> Html:
    words = evaluation.words
    table = calibration_table(evaluation.calibration, words)
    if table is None:
        return _absent("No calibration: no thresholds from held-out normals are known.")
    return fragment(
        _lead(
            "The thresholds were set so that a chosen share of held-out normal data would be flagged. "
            "An observed rate whose interval lies above the nominal one means more false alarms than "
            "promised: these normal data differ from those. "
            + (
                "The interval of images is an exact binomial one, that of pixels is over "
                f"{words.patient}s."
                if words.images
                else "Intervals of volumes and patients are exact binomial ones, those of pixels and "
                "slices are over patients."
            )
        ),
        table,
        threshold_table(evaluation.thresholds_table, evaluation.words),
    )


def _self_test(evaluation: Evaluation) -> Html:
    found = evaluation.self_test
    if found is None:
        return _absent("No self-test: the model's card has none.")
    return fragment(
        _lead(
            "The model was tested when it was trained, on held-out normal images and on nothing of these "
            "data: with anomalies that were made, and under changes that are no anomaly. "
            f"{found.summary}"
        ),
        *(element("p", element("strong", warning)) for warning in found.warnings()),
        finding_table(found),
        reaction_table(found),
    )


def _examples(evaluation: Evaluation) -> Html:
    groups: list[tuple[str, list[Example]]] = [
        ("Best", [e for e in evaluation.examples if e.best]),
        ("Worst", [e for e in evaluation.examples if not e.best]),
    ]
    words = evaluation.words
    if not evaluation.examples:
        return _absent(f"No examples: no {words.slice} was kept to be looked at.")
    parts = [
        _lead(
            f"Left: the {words.slice}. Middle: the anomaly map over it, transparent below 0.4; the white "
            "line encloses what reaches the threshold, 0.5. Right: the mask of the true "
            f"{words.lesion}, outlined in cyan."
        ),
        scale_bar(),
    ]
    for heading, examples in groups:
        if not examples:
            parts.append(_absent(f"No {heading.lower()} cases: none were kept."))
            continue
        shown = [example_figure(example, words) for example in examples[:_EXAMPLES]]
        parts += [element("h3", heading), element("div", *shown, class_="examples")]
    return fragment(*parts)


def _training(evaluation: Evaluation) -> Html:
    charts = training_panels(evaluation.training)
    if not charts:
        return _absent("No training curves: the training is not known to this evaluation.")
    return side_by_side(charts)


def _studies(evaluation: Evaluation) -> Html:
    table = study_table(evaluation.studies, evaluation.words)
    if table is None:
        return _absent("No table of studies: the evaluation has no rows of them.")
    rest = len(evaluation.studies) - STUDIES_SHOWN
    pointer = (
        [_lead(f"{rest:,} more are in ", element("code", "studies.csv"), ".")] if rest > 0 else []
    )
    return fragment(table, *pointer)


def _manifest(evaluation: Evaluation) -> Html:
    return manifest_table(evaluation.manifest) or _absent("No manifest: none was recorded.")


def _splits(words: Words) -> tuple[tuple[str, str, Callable[[Evaluation], Html]], ...]:
    return (
        ("metrics", "Metrics", _metrics),
        ("baselines", "Trivial baselines", _baselines),
        ("curves", "Curves", _curves),
        ("scores", "Scores", _histograms),
        ("calibration", "Calibration", _calibration),
        ("self-test", "Self-test of the model", _self_test),
        ("examples", "Best and worst cases", _examples),
        ("training", "Training", _training),
        ("studies", words.shown("studies").capitalize(), _studies),
        ("manifest", "How the run was made", _manifest),
    )


def render_page(evaluation: Evaluation, *, title: str) -> str:
    """One HTML page that loads nothing, for light and dark screens and for paper.

    Args:
        evaluation: what is shown.
        title: of the page.

    Raises:
        ValueError: when a curve or an example has parts of different sizes.
    """
    contents = _splits(evaluation.words)
    splits = [
        element(
            "split",
            element("h2", heading, id=f"{name}-heading"),
            body(evaluation),
            id=name,
            aria_labelledby=f"{name}-heading",
        )
        for name, heading, body in contents
    ]
    links = [element("li", element("a", heading, href=f"#{n}")) for n, heading, _ in contents]
    style = files("multiad_med.evaluation.report").joinpath("style.css").read_text("utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    cards = headline_cards(evaluation.metrics, evaluation.words)
    body = element(
        "body",
        element("header", _header(evaluation, title)),
        element(
            "main",
            _remarks(evaluation),
            cards or _absent("No headline metrics: none of them is defined."),
            element("nav", element("ul", *links), aria_label="Contents"),
            *splits,
        ),
        element("footer", element("p", "Multi-AD Med. For research, not for diagnostic use.")),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n'
