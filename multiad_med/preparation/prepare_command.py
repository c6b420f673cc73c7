"""What the command ``multiad prepare`` says and does."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiad_med.datasets import recognise
from multiad_med.dicom.read.series import find_series
from multiad_med.preparation.recipe_run import Summary, prepare
from multiad_med.preparation.recipes import load_recipe, recipe_names
from multiad_med.utils.settings import parse_settings

__all__ = ["explain_folder", "explain_recipes", "run"]


def explain_recipes() -> str:
    """Return name, purpose and settings of every recipe."""
    parts = []
    for name in recipe_names():
        recipe = load_recipe(name)
        names = ", ".join(f"{key}={value!r}" for key, value in recipe.settings.items())
        parts.append(
            f"{name}: {recipe.title}\n"
            + textwrap.indent(recipe.about, "    ")
            + "\n"
            + textwrap.fill(
                f"settings: {names}", 96, initial_indent="    ", subsequent_indent="      "
            )
        )
    return "\n\n".join(parts)


def explain_folder(folder: Path) -> str:
    """Return what a folder holds, the fitting recipe first."""
    lines = []
    findings = recognise(folder)
    for finding in findings:
        if finding.recipe is None:
            lines.append(finding.note)
            continue
        splits = ", ".join(f"{n} {split}" for split, n in finding.splits.items())
        counts = f"{finding.items} studies of {finding.subjects} subjects" if finding.items else ""
        lines.append("; ".join(part for part in (counts, splits, finding.note) if part))
        lines[-1] = f"{finding.recipe}: {lines[-1]}"
    if all(finding.recipe is None for finding in findings):
        search = find_series(folder)
        lines[:0] = [
            f"volumes: DICOM series {series.uid} of patient {series.patient_id}: {series.modality}, "
            f"{len(series.files)} files, {series.description!r}"
            for series in search.series
        ]
    return "\n".join(lines)


def run(
    recipe: str,
    source: Path,
    target: Path,
    settings: Sequence[str],
    **options: Any,
) -> Summary:
    """Prepare ``source`` by a recipe with settings ``NAME=VALUE``; options as of :func:`prepare`."""
    return prepare(load_recipe(recipe, parse_settings(settings)), source, target, **options)
