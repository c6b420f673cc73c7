"""A PNG of slices, their anomaly maps, and the true lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multiad_med.transforms import radiological_view
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.errors import InputError
from multiad_med.visualize.colours import SHOWN, heat_colours, intensity_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MontageColumn", "save_montage"]


@dataclass(frozen=True)
class MontageColumn:
    """One axial slice of a study, arrays ``(X, Y)`` in RAS+; or an image ``(rows, columns)``.

    Attributes:
        title: shown above.
        image: intensities.
        anomaly_map: calibrated map in [0, 1], 0.5 being the threshold.
        lesion: true lesion mask, or None where the truth is unknown.
        spacing: pixel size along the two axes in mm.
        upright: whether it is an image, such as a B-scan, to be shown as it is.
        limits: intensities shown black and white; by default the slice's own range.
        threshold: of the map; a line surrounds what reaches it.
    """

    title: str
    image: NDArray[np.floating]
    anomaly_map: NDArray[np.floating]
    lesion: NDArray[np.bool_] | None = None
    spacing: tuple[float, float] = (1.0, 1.0)
    upright: bool = False
    limits: tuple[float, float] | None = None
    threshold: float = 0.5


def _outline(axis: Axes, mask: NDArray[np.bool_], colour: str) -> None:
    if mask.any():
        # Padded, so that a line is closed where the mask reaches the border; the view stays.
        limits = axis.get_xlim(), axis.get_ylim()
        rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
        axis.contour(columns, rows, np.pad(mask, 1), levels=[0.5], colors=colour, linewidths=0.9)
        axis.set(xlim=limits[0], ylim=limits[1])


def save_montage(columns: Sequence[MontageColumn], path: str | Path, *, title: str = "") -> None:
    """Draw one column per slice: the slice, the map over it, and, where known, the true lesion.

    A line surrounds what reaches the threshold.

    Axial slices are shown as radiologists see them: anterior above, the patient's right on the left.

    Args:
        columns: at least one.
        path: of the PNG.
        title: of the montage.

    Raises:
        InputError: without columns.
    """
    if not columns:
        raise InputError("A montage needs at least one slice.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    rows = ["slice", "anomaly map"]
    if any(column.lesion is not None for column in columns):
        rows.append("true lesion")
    figure = Figure(figsize=(2.1 * len(columns) + 0.9, 2.5 * len(rows)), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(rows), len(columns), squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03}
    )
    heat: AxesImage
    for i, column in enumerate(columns):
        image, heat_map = (
            radiological_view(np.asarray(values, dtype=float), upright=column.upright)
            for values in (column.image, column.anomaly_map)
        )
        first, second = column.spacing
        aspect = first / second if column.upright else second / first
        black, white = column.limits or intensity_range(image)
        for row, name in enumerate(rows):
            axis = axes[row, i]
            axis.imshow(image, cmap="gray", origin="upper", aspect=aspect, vmin=black, vmax=white)
            axis.set_xticks([])
            axis.set_yticks([])
            if i == 0:
                axis.set_ylabel(name, color="white")
            if row == 0:
                axis.set_title(column.title, color="white", fontsize=9)
                for place, side in () if column.upright else ((0.02, "R"), (0.92, "L")):
                    axis.text(place, 0.5, side, color="white", fontsize=8, transform=axis.transAxes)
            elif row == 1:
                heat = axis.imshow(
                    heat_map,
                    cmap="inferno",
                    origin="upper",
                    aspect=aspect,
                    vmin=SHOWN[0],
                    vmax=SHOWN[1],
                    alpha=heat_colours(heat_map)[..., 3],
                )
                _outline(axis, heat_map >= column.threshold, "white")
            elif column.lesion is not None:
                lesion = radiological_view(column.lesion, upright=column.upright)
                _outline(axis, lesion, "cyan")
    if title:
        figure.suptitle(title, color="white", fontsize=11, y=0.96, va="bottom")
    bar = figure.colorbar(heat, ax=axes, fraction=0.02, pad=0.01)
    bar.ax.tick_params(colors="white", labelsize=8)
    bar.set_label("0.5 = threshold set on held-out normals", color="white", fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black", bbox_inches="tight")
