"""The page: what was found, in the order in which a reader asks."""

from __future__ import annotations

from importlib.resources import files

from multiad_med.evaluation.report.charts import (
    PANELS,
    Panel,
    curve_panel,
    histogram_panel,
    side_by_side,
    training_panels,
)
from multiad_med.evaluation.report.markup import Html, element, fragment
from multiad_med.evaluation.report.pictures import example_figure, scale_bar
from multiad_med.evaluation.report.tables import (
    STUDIES_SHOWN,
    baseline_table,
    calibration_table,
    category_table,
    figure_table,
    headline_cards,
    manifest_table,
    study_table,
)
from multiad_med.evaluation.report.thresholds import threshold_table
from multiad_med.evaluation.results import Evaluation, Example

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


def _header(evaluation: Evaluation, title: str) -> Html:
    counts = " · ".join(_counted(number, name) for name, number in evaluation.counts.items())
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


def _figures(evaluation: Evaluation) -> Html:
    table = figure_table(evaluation.figures)
    if table is None:
        return _absent("No figures: the evaluation has none.")
    return fragment(
        _lead(
            "A 95 % interval holds the middle 95 % of the values that a figure takes when patients are "
            "drawn anew with replacement (bootstrap): how far it depends on who happened to be in the "
            "test set. A picture of no named patient counts as a patient of its own. A dash "
            "stands for a figure that is undefined on these data, or an interval that was not computed."
        ),
        table,
        *([categories] if (categories := category_table(evaluation.categories)) else []),
    )


def _baselines(evaluation: Evaluation) -> Html:
    table = baseline_table(evaluation.baselines, evaluation.figures)
    if table is None:
        return _absent("No shortcuts: none were evaluated.")
    return fragment(
        _lead(
            "A shortcut looks for no anomaly. Each is taken in the direction that does better on these "
            "very data. Where one comes near the model, the test set can be solved without finding "
            "lesions, and the model's figure proves little."
        ),
        table,
    )


def _curves(evaluation: Evaluation) -> Html:
    prevalence = {
        level: len(scores.abnormal) / (len(scores.abnormal) + len(scores.normal))
        for level, scores in evaluation.histograms.items()
        if scores.abnormal
    }
    drawn, missing = [], []
    for name in dict.fromkeys([*PANELS, *evaluation.curves]):
        chart = curve_panel(name, evaluation.curves.get(name, ()), prevalence=prevalence)
        if chart is None:
            panel = PANELS.get(name, Panel(name))
            missing.append(_absent(f"No chart “{panel.title}”: {panel.needs}."))
        else:
            drawn.append(chart)
    return fragment(*([side_by_side(drawn)] if drawn else []), *missing)


def _histograms(evaluation: Evaluation) -> Html:
    drawn = [
        chart
        for level, scores in evaluation.histograms.items()
        if (chart := histogram_panel(level, scores)) is not None
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
    table = calibration_table(evaluation.calibration)
    if table is None:
        return _absent("No calibration: no thresholds from held-out normals are known.")
    return fragment(
        _lead(
            "The thresholds were set so that a chosen share of held-out normal data would be flagged. "
            "An observed rate whose interval lies above the nominal one means more false alarms than "
            "promised: these normal data differ from those. Intervals of volumes and patients are exact "
            "binomial ones, those of pixels and slices are over patients."
        ),
        table,
        threshold_table(evaluation.thresholds_table),
    )


def _examples(evaluation: Evaluation) -> Html:
    groups: list[tuple[str, list[Example]]] = [
        ("Best", [e for e in evaluation.examples if e.best]),
        ("Worst", [e for e in evaluation.examples if not e.best]),
    ]
    if not evaluation.examples:
        return _absent("No examples: no slice was kept to be looked at.")
    parts = [
        _lead(
            "Left: the slice. Middle: the anomaly map over it, transparent below 0.4; the white line "
            "encloses what reaches the threshold, 0.5. Right: the true lesion, outlined in cyan."
        ),
        scale_bar(),
    ]
    for heading, examples in groups:
        if not examples:
            parts.append(_absent(f"No {heading.lower()} cases: none were kept."))
            continue
        shown = [example_figure(example) for example in examples[:_EXAMPLES]]
        parts += [element("h3", heading), element("div", *shown, class_="examples")]
    return fragment(*parts)


def _training(evaluation: Evaluation) -> Html:
    charts = training_panels(evaluation.training)
    if not charts:
        return _absent("No training curves: the training is not known to this evaluation.")
    return side_by_side(charts)


def _studies(evaluation: Evaluation) -> Html:
    table = study_table(evaluation.studies)
    if table is None:
        return _absent("No table of studies: the evaluation has no rows of them.")
    rest = len(evaluation.studies) - STUDIES_SHOWN
    pointer = (
        [_lead(f"{rest:,} more are in ", element("code", "studies.csv"), ".")] if rest > 0 else []
    )
    return fragment(table, *pointer)


def _manifest(evaluation: Evaluation) -> Html:
    return manifest_table(evaluation.manifest) or _absent("No manifest: none was recorded.")


_SECTIONS = (
    ("figures", "Figures", _figures),
    ("shortcuts", "Shortcuts", _baselines),
    ("curves", "Curves", _curves),
    ("scores", "Scores", _histograms),
    ("calibration", "Calibration", _calibration),
    ("examples", "Best and worst cases", _examples),
    ("training", "Training", _training),
    ("studies", "Studies", _studies),
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
    sections = [
        element(
            "section",
            element("h2", heading, id=f"{name}-heading"),
            body(evaluation),
            id=name,
            aria_labelledby=f"{name}-heading",
        )
        for name, heading, body in _SECTIONS
    ]
    links = [element("li", element("a", heading, href=f"#{n}")) for n, heading, _ in _SECTIONS]
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
    cards = headline_cards(evaluation.figures)
    body = element(
        "body",
        element("header", _header(evaluation, title)),
        element(
            "main",
            _remarks(evaluation),
            cards or _absent("No headline figures: none of them is defined."),
            element("nav", element("ul", *links), aria_label="Contents"),
            *sections,
        ),
        element("footer", element("p", "Multi-AD Med. For research, not for diagnostic use.")),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n'
