"""The report's tables of the model's self-test."""

from __future__ import annotations

from multiad_med.evaluation.report.tables import scrolling_table
from multiad_med.self_test_result import SelfTest
from multiad_med.visualize.markup import Html, element

__all__ = ["finding_table", "reaction_table"]

_MISSING = "\N{EN DASH}"


def _row(name: str, *cells: str) -> Html:
    numbers = (element("td", cell, class_="number") for cell in cells)
    return element("tr", element("th", name, scope="row"), *numbers)


def _share(value: float | None) -> str:
    return _MISSING if value is None else f"{100 * value:.1f} %"


def finding_table(found: SelfTest) -> Html:
    """The AUROC of images by kind and size of pseudo-anomaly."""
    head = [("Pseudo-anomaly", "text")]
    head += [(f"{100 * size:g} % of the side", "number") for size in found.sizes]
    rows = [
        _row(kind, *(f"{found.slice_auroc(kind=kind, size=size):.2f}" for size in found.sizes))
        for kind in found.kinds
    ]
    rows += [
        _row("mean", *(f"{found.slice_auroc(size=size):.2f}" for size in found.sizes)),
        _row(
            "mean, under the worst change",
            *(f"{found.worst_auroc(size=size):.2f}" for size in found.sizes),
        ),
    ]
    caption = "AUROC of held-out normal images with a pseudo-anomaly against those without."
    return scrolling_table(caption, head, element("tbody", *rows), class_="findings")


def reaction_table(found: SelfTest) -> Html:
    """How scores of normal images react to changes that are no anomaly."""
    head = [("Change", "text"), ("AUROC", "number"), ("Called anomalous", "number")]
    head.append(("Reacts", "text"))
    rows = [_row("none", _MISSING, _share(found.flagged), _MISSING)]
    rows += [
        _row(r.nuisance, f"{r.auroc:.2f}", _share(r.flagged), "yes" if r.reacts else "no")
        for r in found.reactions
    ]
    caption = (
        "Changed held-out normal images against unchanged ones; an AUROC of 0.5 is no reaction."
    )
    return scrolling_table(caption, head, element("tbody", *rows), class_="reactions")
