"""``multiad demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from multiad_med.cli.options import Seed, output_option

EXAMPLE = "Example: multiad demo -o demo/"


def demo(
    output: Annotated[Path, output_option("Folder for the cohort, model, maps and metrics.")],
    seed: Seed = 0,
) -> None:
    """Train on an embedded cohort of brains and map unseen ones, in about 5 minutes."""
    from multiad_med.demo import run_demo

    run_demo(output, seed=seed)
