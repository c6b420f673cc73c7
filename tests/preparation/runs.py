"""Prepare by a recipe, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiad_med.preparation import Summary, load_recipe, prepare


def run(recipe: str, folder: Path, **settings: Any) -> tuple[Summary, Path]:
    """Prepare ``folder/source`` in this process."""
    target = folder / "target"
    settings.setdefault("size", 32)
    return (
        prepare(
            load_recipe(recipe, settings), folder / "source", target, workers=0, progress=False
        ),
        target,
    )


def states(summary: Summary, split: str) -> dict[str, int]:
    return {state: n for (name, state), n in summary.slices.items() if name == split}
