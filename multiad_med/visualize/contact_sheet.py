"""One offline page of all judged studies, the worst first."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from PIL import Image

from multiad_med.data.study_results import MAP, OVERLAY, VIEWER, beside_map, study_of_map
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.templates import render
from multiad_med.visualize.colours import scale_colours
from multiad_med.visualize.embedded import embedded_jpeg
from multiad_med.visualize.overlay_file import read_overlay
from multiad_med.visualize.viewed_study import load_study
from multiad_med.visualize.viewer_page import write_page
from multiad_med.visualize.worst_slice import write_overlay

__all__ = [
    "SHOWN",
    "VIEWERS",
    "draw_study",
    "needs_drawing",
    "worst_first",
    "write_contact_sheet",
]

SHOWN = 200
"""Studies with an image, at most."""

VIEWERS = 10
"""How many of the worst studies get a viewer if they are volumes: each page holds the whole volume."""

_SIDE = 320
_logger = logging.getLogger(__name__)


def _is_volume(anomaly_map: Path) -> bool:
    return anomaly_map.name.endswith(MAP)


def draw_study(image: str, anomaly_map: Path, *, viewer: bool, bscans: bool) -> None:
    """Make a volume's missing overlay and viewer; an image has its overlay.

    Args:
        image: as in a datalist, of several files the first.
        anomaly_map: of it.
        viewer: whether it gets a viewer.
        bscans: see :func:`multiad_med.visualize.load_study`.
    """
    if not needs_drawing(anomaly_map, viewer=viewer):
        return
    overlay, page = beside_map(anomaly_map, OVERLAY), beside_map(anomaly_map, VIEWER)
    study = load_study(image, anomaly_map, bscans=bscans)
    if not overlay.is_file():
        write_overlay(study, overlay)
    if viewer and not page.is_file():
        write_page(study, page)


def needs_drawing(anomaly_map: Path, *, viewer: bool) -> bool:
    """Return whether :func:`draw_study` has something to do."""
    overlay, page = beside_map(anomaly_map, OVERLAY), beside_map(anomaly_map, VIEWER)
    drawn = overlay.is_file() and (page.is_file() or not viewer)
    return _is_volume(anomaly_map) and not drawn


def _thumbnail(overlay: Path) -> dict[str, Any]:
    image = read_overlay(overlay)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2)
    source = embedded_jpeg(image, quality=80)
    return {"source": source, "width": image.width, "height": image.height}


def _verdict(row: Mapping[str, Any]) -> str:
    """Return the class of a tile's verdict: ``anomalous``, ``normal``, or ``none``."""
    decision = str(row["decision"])
    return decision if decision in ("anomalous", "normal") else "none"


def _tile(row: Mapping[str, Any], folder: Path, **reading: Any) -> dict[str, Any]:
    """Return what the template shows of a study: its row, its image, and what a click opens."""
    where = PurePosixPath(str(row["map"]))
    anomaly_map = folder / where
    overlay, page = beside_map(anomaly_map, OVERLAY), beside_map(anomaly_map, VIEWER)
    thumbnail, problem = None, ""
    try:
        draw_study(str(row["image"]), anomaly_map, **reading)
        thumbnail = _thumbnail(overlay)
    except Exception as error:  # one study's image that cannot be made stops no other
        _logger.warning("%s: no image on the contact sheet: %s", row["image"], error)
        problem = str(error)
    opens = next((path for path in (page, overlay) if path.is_file()), None)
    link = opens and quote(str(where.with_name(opens.name)), errors="surrogateescape")
    return {
        **row,
        "name": where.with_name(study_of_map(anomaly_map)),
        "verdict": _verdict(row),
        "thumbnail": thumbnail,
        "problem": problem,
        "link": link,
        "viewer": opens == page,
    }


def worst_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of studies that have a map, the highest score first."""
    judged = (row for row in rows if row["score"] is not None and row["map"])
    return sorted(judged, key=lambda row: -row["score"])


def write_contact_sheet(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    bscans: bool = False,
) -> None:
    """Write the page beside the results, with an image of each of the worst 200 studies.

    A volume's image is its worst slice, which is written beside its map as ``<name>_anomaly.png`` if
    absent; the worst ten also get ``<name>_anomaly_viewer.html``. A content security policy in the page
    forbids the browser any request.

    Args:
        rows: of the summary; paths of maps are relative to the page's folder.
        path: of the page.
        bscans: of volumes, see :func:`multiad_med.visualize.load_study`.
    """
    judged = worst_first(rows)
    failed = [row for row in rows if row["status"] == "failed"]
    page = render(
        "visualize/assets/contact_sheet.html.jinja",
        judged=len(judged),
        verdicts=Counter(map(_verdict, judged)),
        volumes=sum(_is_volume(Path(str(row["map"]))) for row in judged),
        viewers=VIEWERS,
        shown=SHOWN,
        failed=failed,
        scale=scale_colours(),
        tiles=[
            _tile(row, path.parent, viewer=place < VIEWERS, bscans=bscans)
            for place, row in enumerate(judged[:SHOWN])
        ],
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
