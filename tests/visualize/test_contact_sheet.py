"""The contact sheet: the worst first, at hand, and no more than a browser can bear."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiad_med.visualize import contact_sheet
from multiad_med.visualize.contact_sheet import write_contact_sheet
from multiad_med.visualize.overlay_file import read_overlay, save_overlay
from tests.evaluation.reports import NAME, Reader
from tests.visualize.studies import MARK, SHAPE, STORED, write_study


def image_row(folder: Path, name: str, score: float, **values: Any) -> dict[str, Any]:
    """The row of an image, whose overlay is written."""
    path = folder / f"{name}_anomaly.png"
    save_overlay(path, np.full((30, 40, 3), round(255 * score), np.uint8), "score")
    row = {"image": f"in/{name}.png", "status": "done", "score": score, "p_value": 0.05}
    return row | {"decision": "normal", "seconds": 1, "message": "", "map": f"{name}.tiff"} | values


def volume_row(folder: Path, name: str, score: float, stored: str = "RAS") -> dict[str, Any]:
    """The row of a volume, of which overlay and viewer are still to be made."""
    study, anomaly_map, _ = write_study(folder / name, *STORED[stored])
    row = {"image": str(study), "status": "done", "score": score, "p_value": 0.05, "message": ""}
    return row | {"decision": "anomalous", "map": anomaly_map.relative_to(folder).as_posix()}


def failed_row(name: str, message: str) -> dict[str, Any]:
    row = {"image": name, "status": "failed", "message": message}
    return row | dict.fromkeys(("score", "p_value", "decision", "map"))


def sheet(rows: list[dict[str, Any]], folder: Path) -> str:
    write_contact_sheet(rows, folder / "summary.html")
    return (folder / "summary.html").read_text(encoding="utf-8")


def names(page: str) -> list[str]:
    return re.findall(r'class="name"[^>]*>([^<]*)<', page)


def test_the_worst_come_first_with_score_verdict_and_scale(tmp_path: Path) -> None:
    rows = [
        image_row(tmp_path, "a", 0.2),
        image_row(tmp_path, "b", 0.9, decision="anomalous"),
        failed_row("in/c.png", "is truncated"),
        image_row(tmp_path, "d", 0.4, decision="no verdict: 6 normal volumes"),
    ]
    page = sheet(rows, tmp_path)
    assert names(page) == ["1. b", "2. d", "3. a"]
    text = Reader(page).text
    for words in (
        "4 studies: 1 anomalous, 1 normal, 1 without a verdict, 1 failed",
        "score 0.900, p-value 0.05",
        "no verdict: 6 normal volumes",
        "in/c.png: is truncated",
        "0.5 threshold",
    ):
        assert words in text, words
    assert Reader(page).values("href") == ["b_anomaly.png", "d_anomaly.png", "a_anomaly.png"]


def test_it_needs_nothing_else_and_strings_are_escaped(tmp_path: Path) -> None:
    odd = "a #1% ü"
    rows = [image_row(tmp_path, odd, 0.5, image=NAME), failed_row(NAME, NAME)]
    page = sheet(rows, tmp_path)
    reader = Reader(page)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert policy in reader.values("content")
    assert not re.search(r"https?://|@import|<script|<link|<iframe", page)
    (source,) = reader.values("src")
    assert source.startswith("data:image/jpeg;base64,")
    assert reader.values("href") == ["a%20%231%25%20%C3%BC_anomaly.png"]


def test_only_the_worst_are_shown_and_the_page_says_so(tmp_path: Path) -> None:
    rows = [image_row(tmp_path, f"n{i}", i / 1000) for i in range(205)]
    page = sheet(rows, tmp_path)
    assert names(page)[0] == "1. n204"
    assert len(names(page)) == len(Reader(page).values("src")) == 200
    assert re.search(r"\b200 studies with the highest scores\b.*summary\.csv", page)
    assert (tmp_path / "summary.html").stat().st_size < 4_000_000


def test_volumes_get_an_image_and_the_worst_of_them_a_viewer_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "VIEWERS", 1)
    rows = [volume_row(tmp_path, "low", 0.2), volume_row(tmp_path, "high", 0.8)]
    page = sheet(rows, tmp_path)
    links = ["high/study_anomaly_viewer.html", "low/study_anomaly.png"]
    assert Reader(page).values("href") == links
    assert all((tmp_path / link).is_file() for link in links)
    assert re.search(r"\b1 studies with the highest scores\b.*viewer", page)
    read: list[object] = []
    monkeypatch.setattr(contact_sheet, "load_study", lambda *a, **_: read.append(a))
    assert sheet(rows, tmp_path) == page
    assert read == []


@pytest.mark.parametrize("stored", STORED)
def test_a_volumes_image_is_its_worst_slice_as_a_radiologist_sees_it(
    tmp_path: Path, stored: str
) -> None:
    sheet([volume_row(tmp_path, "a", 0.8, stored)], tmp_path)
    overlay = np.asarray(read_overlay(tmp_path / "a/study_anomaly.png")).astype(int)
    rows, columns = np.nonzero(overlay[..., 0] - overlay[..., 2] > 60)
    height, width = overlay.shape[:2]
    # The whole slice is body here. Patient left (x = 5 of 24) is on the right, anterior above.
    across, down = 1 - (MARK[0] + 0.5) / SHAPE[0], 1 - (MARK[1] + 0.5) / SHAPE[1]
    assert columns.mean() / width == pytest.approx(across, abs=0.02)
    assert rows.mean() / height == pytest.approx(down, abs=0.02)


def test_a_study_without_image_keeps_its_place_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [volume_row(tmp_path, "gone", 0.9), image_row(tmp_path, "b", 0.4)]
    Path(rows[0]["image"]).unlink()
    page = sheet(rows, tmp_path)
    assert names(page) == ["1. gone/study", "2. b"]
    assert "No image: " in page
    assert "study.nii.gz does not exist" in page
    assert "no image on the contact sheet" in caplog.text


def test_rows_without_map_or_score_are_no_images(tmp_path: Path) -> None:
    page = sheet([image_row(tmp_path, "a", 0.5, map=None)], tmp_path)
    assert names(page) == []
