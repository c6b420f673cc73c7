"""Writing of a report: everything is rendered before the first file is touched."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multiad_med.evaluation.evaluation import Evaluation
from multiad_med.evaluation.report.page import render_page
from multiad_med.evaluation.report.tables import columns_of
from multiad_med.utils.atomic import atomic_path, write_json
from multiad_med.utils.errors import InputError

__all__ = ["write_report"]

# Columns that rows start with, which a table without rows still has.
_KEYS = {
    "slices": ("study", "subject", "slice"),
    "studies": ("study", "subject"),
    "patients": ("subject", "studies"),
}


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _csv(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """Return rows under the union of their columns; six digits, empty where undefined."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    columns = columns_of(rows) or list(keys)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return stream.getvalue()


def write_report(evaluation: Evaluation, folder: str | Path, *, title: str) -> None:
    """Write an evaluation for programs, spreadsheets and people.

    - ``metrics.json``: :meth:`Evaluation.as_json`.
    - ``slices.csv``, ``studies.csv``, ``patients.csv``: one row each; floats have six digits,
      undefined cells are empty. Images that are of no patients have no ``patients.csv``.
    - ``categories.csv``: one row per product or organ, one for their mean and one for all pooled, where
      there are several.
    - ``kinds.csv``: one row per kind of anomaly and one for their mean, where there are several.
    - ``report.html``: one page that needs nothing else, at most a few MB.

    The same evaluation gives the same bytes. Nothing is written unless everything can be rendered,
    and each file is there completely or not at all.

    Args:
        evaluation: of :func:`multiad_med.evaluation.evaluate_cases`.
        folder: made if absent; older files of these names are replaced.
        title: of the page.

    Raises:
        InputError: when given anything but an evaluation, or a curve or an example has parts of
            different sizes.
        ValueError: when the manifest holds NaN, which is not JSON.
        FileError: when the folder cannot be written to.
    """
    if not isinstance(evaluation, Evaluation):
        raise InputError(f"A report needs an Evaluation, got {type(evaluation).__name__}.")
    folder = Path(folder)
    texts = {
        **{
            f"{name}.csv": _csv(getattr(evaluation, name), keys)
            for name, keys in _KEYS.items()
            if name != "patients" or evaluation.words.patients
        },
        "report.html": render_page(evaluation, title=title),
    }
    for file, key in (("categories", "category"), ("kinds", "kind")):
        if groups := getattr(evaluation, file):
            rows = [{key: name, **own} for name, own in groups.items()]
            texts[f"{file}.csv"] = _csv(rows, (key,))
    write_json(folder / "metrics.json", evaluation.as_json())
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            # Names of files may hold bytes that are no text.
            temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
