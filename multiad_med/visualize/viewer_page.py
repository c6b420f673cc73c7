"""The interactive page: one HTML file that holds the viewer, the study and the map, and loads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiad_med.scoring import decision
from multiad_med.transforms import Window
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.templates import render
from multiad_med.visualize.embedded import MAP_STEP, embedded_image, embedded_map, halved
from multiad_med.visualize.findings import find, worst_slice
from multiad_med.visualize.viewed_study import ViewedStudy

__all__ = ["write_page"]

_OF_BODIES = {
    "axial": "axial",
    "coronal": "coronal",
    "sagittal": "sagittal",
    "slice": "axial slice, from the feet up",
}
_OF_BSCANS = {"axial": "B-scan", "coronal": "row", "sagittal": "column", "slice": "B-scan"}


def _start(study: ViewedStudy) -> list[int]:
    """Return the voxel shown first: the highest of the map in the worst slice."""
    index = worst_slice(study)
    heat = study.anomaly_map[..., index]
    return [*(int(i) for i in np.unravel_index(int(heat.argmax()), heat.shape)), index]


def _facts(study: ViewedStudy) -> dict[str, Any]:
    """Return what the page's script needs besides the volumes."""
    scores = study.scores
    return {
        "start": _start(study),
        "findings": [{"at": finding.at, "value": finding.value} for finding in find(study)],
        "shape": list(study.image.shape),
        "affine": study.affine.tolist(),
        "toSource": study.to_source.tolist(),
        "limits": study.limits,
        "windows": {str(w): w.limits for w in Window} if study.hounsfield else {},
        "hounsfield": study.hounsfield,
        "bscans": study.bscans,
        "mapThreshold": study.threshold,
        "mapStep": MAP_STEP,
        "sliceThreshold": scores["thresholds"]["slice_score"] if scores else None,
        "slices": _values(study.slice_values()),
        "semantic": _values(study.semantic_values()),
    }


def _values(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 5) for v in values]


def write_page(study: ViewedStudy, path: Path) -> None:
    """Write the page.

    It names the study as its file or folder is named, and holds nothing else of the file's header
    than the affine. A content security policy in it forbids the browser any request.
    """
    shown = halved(study)
    remarks = list(study.remarks)
    if shown is not study:
        columns, rows, _ = shown.image.shape
        remarks.append(
            f"Slices are shown in {columns} x {rows} instead of {study.image.shape[0]} x "
            f"{study.image.shape[1]} voxels, so that a browser can draw them; in the map the highest "
            "value is kept."
        )
    study = shown
    flagged = study.scores.get("volume_flagged")
    page = render(
        "visualize/assets/viewer.html.jinja",
        name=study.name,
        decision=decision(study.scores),
        verdict="unknown" if flagged is None else "anomalous" if flagged else "normal",
        remarks=remarks,
        **(_OF_BSCANS if study.bscans else _OF_BODIES),
        strip="score" if study.scores else "highest map value",
        semantic=bool(np.isfinite(study.semantic_values()).any()),
        facts=_facts(study),
        image=embedded_image(study),
        map=embedded_map(study),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
