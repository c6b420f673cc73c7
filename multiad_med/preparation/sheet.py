"""A contact sheet: a few prepared slices of each kind, the right way up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multiad_med.data.slice_cache import read_slice
from multiad_med.transforms import radiological_view
from multiad_med.utils.atomic import atomic_path

__all__ = ["save_contact_sheet"]

COLUMNS = 8


def _choose(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Choose slices spread evenly over each split and state."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{row['split']}\n{row['state']}", []).append(row)
    return {
        name: [
            group[i] for i in np.linspace(0, len(group) - 1, min(COLUMNS, len(group))).astype(int)
        ]
        for name, group in groups.items()
    }


def save_contact_sheet(
    path: str | Path, cache: str | Path, rows: Sequence[Mapping[str, Any]], *, upright: bool
) -> None:
    """Draw slices with the outline of their foreground (yellow) and of their lesions (red).

    Args:
        path: of the PNG.
        cache: folder of the prepared slices.
        rows: of its index, at least one.
        upright: see :func:`multiad_med.transforms.radiological_view`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = _choose(rows)
    figure = Figure(figsize=(1.7 * COLUMNS + 1, 1.9 * len(groups)), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(groups), COLUMNS, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.2}
    )
    for line, (name, chosen) in zip(axes, groups.items(), strict=True):
        for axis in line:
            axis.set_axis_off()
        line[0].text(
            -0.1, 0.5, name, color="white", fontsize=9, ha="right", va="center",
            transform=line[0].transAxes,
        )  # fmt: skip
        for axis, row in zip(line, chosen, strict=False):
            slice_ = read_slice(cache, str(row["study"]), int(row["position"]))
            image, foreground, lesion = (
                radiological_view(slice_[key], upright=upright)
                for key in ("image", "foreground", "label")
            )
            top = np.iinfo(image.dtype).max
            shown = image[:3] if len(image) >= 3 else image[:1]
            axis.imshow(shown.transpose(1, 2, 0) / top, cmap="gray", vmin=0, vmax=1)
            for mask, colour in ((foreground, "yellow"), (lesion, "red")):
                if mask.any() and not mask.all():
                    axis.contour(mask, levels=[0.5], colors=colour, linewidths=0.6)
            label = str(row["study"])
            axis.set_title(f"{label[-22:]} {row['slice']}", color="white", fontsize=6, pad=2)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black", bbox_inches="tight")
