"""One page of all judged studies, the worst first, that a browser opens without a network."""

from __future__ import annotations

import base64
import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from PIL import Image

from multiad_med.data.study_results import MAP, OVERLAY, VIEWER, beside_map, study_of_map
from multiad_med.utils.atomic import atomic_path
from multiad_med.visualize.markup import Html, element, fragment
from multiad_med.visualize.overlay_file import read_overlay
from multiad_med.visualize.scale_bar import scale_bar
from multiad_med.visualize.viewed_study import load_study
from multiad_med.visualize.viewer_page import write_page
from multiad_med.visualize.worst_slice import write_overlay

__all__ = ["SHOWN", "VIEWERS", "write_contact_sheet"]

SHOWN = 200
"""Studies with an image, at most."""

VIEWERS = 10
"""How many of the worst studies get a viewer if they are volumes: each page holds the whole volume."""

_SIDE = 320
_logger = logging.getLogger(__name__)


def _is_volume(anomaly_map: Path) -> bool:
    return anomaly_map.name.endswith(MAP)


def _prepare(image: str, anomaly_map: Path, *, viewer: bool, bscans: bool) -> None:
    """Make what a volume lacks of overlay and viewer; an image has its overlay."""
    overlay, page = beside_map(anomaly_map, OVERLAY), beside_map(anomaly_map, VIEWER)
    viewer = viewer and not page.is_file()
    if not _is_volume(anomaly_map) or (overlay.is_file() and not viewer):
        return
    study = load_study(image, anomaly_map, bscans=bscans)
    if not overlay.is_file():
        write_overlay(study, overlay)
    if viewer:
        write_page(study, page)


def _thumbnail(overlay: Path) -> Html:
    image = read_overlay(overlay)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = map(str, image.size)
    return element("img", src=source, alt="", width=width, height=height)


def _verdict(row: Mapping[str, Any]) -> str:
    """The class of a tile's verdict: ``anomalous``, ``normal``, or ``none``."""
    decision = str(row["decision"])
    return decision if decision in ("anomalous", "normal") else "none"


def _tile(row: Mapping[str, Any], folder: Path, place: int, **reading: Any) -> Html:
    where = PurePosixPath(str(row["map"]))
    anomaly_map = folder / where
    overlay, page = beside_map(anomaly_map, OVERLAY), beside_map(anomaly_map, VIEWER)
    try:
        _prepare(str(row["image"]), anomaly_map, **reading)
        picture: Html = _thumbnail(overlay)
    except Exception as error:  # an image that cannot be made costs no other study its own
        _logger.warning("%s: no image on the contact sheet: %s", row["image"], error)
        picture = element("span", f"No image: {error}", class_="absent")
    opens = next((path for path in (page, overlay) if path.is_file()), None)
    if opens is not None:
        what = "Open the viewer" if opens == page else "Open the overlay"
        link = quote(str(where.with_name(opens.name)), errors="surrogateescape")
        picture = element("a", picture, href=link, title=what)
    name = where.with_name(study_of_map(anomaly_map))
    p_value = f", p-value {row['p_value']:.3g}" if row["p_value"] is not None else ""
    return element(
        "li",
        picture,
        element("p", f"{place}. {name}", class_="name", title=str(row["image"])),
        element("p", f"score {row['score']:.3f}{p_value}"),
        element("p", str(row["decision"]), class_=f"verdict {_verdict(row)}"),
        *([element("p", "viewer", class_="opens")] if opens == page else []),
    )


def _sentences(judged: Sequence[Mapping[str, Any]], failed: int) -> Iterator[str]:
    verdicts = Counter(_verdict(row) for row in judged)
    yield (
        f"{len(judged) + failed:,} studies: {verdicts['anomalous']:,} anomalous, {verdicts['normal']:,} "
        f"normal, {verdicts['none']:,} without a verdict, {failed:,} failed. The highest scores come "
        "first."
    )
    if len(judged) > SHOWN:
        yield f"Shown are the {SHOWN} studies with the highest scores; all are in summary.csv."
    volumes = sum(_is_volume(Path(str(row["map"]))) for row in judged)
    if volumes > VIEWERS:
        yield (
            f"An image is the worst slice. Of the {VIEWERS} studies with the highest scores a click "
            "opens the viewer; for another: multiad view STUDY MAP --output DIR."
        )
    elif volumes:
        yield "An image is the worst slice; a click on it opens the viewer."
    elif judged:
        yield "A click on an image opens it at its full size."
    yield (
        "The white line surrounds what reaches the threshold of the map. For research, not for "
        "diagnostic use."
    )


def write_contact_sheet(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    bscans: bool = False,
) -> None:
    """Write the page beside the results, with an image of each of the worst 200 studies.

    A volume's image is its worst slice, which is written beside its map as ``<name>_anomaly.png``
    where it is not there yet; the worst ten also get ``<name>_anomaly_viewer.html``. A content security
    policy in the page forbids the browser any request.

    Args:
        rows: of the summary; maps are named from the page's folder.
        path: of the page.
        bscans: of volumes, see :func:`multiad_med.visualize.load_study`.
    """
    judged = sorted(
        (row for row in rows if row["score"] is not None and row["map"]),
        key=lambda row: -row["score"],
    )
    failed = [row for row in rows if row["status"] == "failed"]
    tiles = [
        _tile(row, path.parent, place, viewer=place <= VIEWERS, bscans=bscans)
        for place, row in enumerate(judged[:SHOWN], start=1)
    ]
    title = "Judged studies, worst first"
    failures = [element("li", f"{row['image']}: {row['message']}") for row in failed[:SHOWN]]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element(
            "style", Html(files("multiad_med.visualize").joinpath("assets/sheet.css").read_text())
        ),
    )
    body = element(
        "body",
        element("h1", title),
        *(element("p", sentence) for sentence in _sentences(judged, len(failed))),
        *([scale_bar()] if tiles else []),
        *([element("h2", "Failed"), element("ul", *failures, class_="failed")] if failed else []),
        element("ol", *tiles, class_="tiles"),
    )
    page = f'<!DOCTYPE html>\n<html lang="en">{fragment(head, body)}</html>\n'
    with atomic_path(path) as temporary:
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
