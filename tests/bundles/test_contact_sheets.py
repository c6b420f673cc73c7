"""The contact sheet that every bundle's inference leaves beside its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from multiad_med.testing.cohorts import COHORTS, one_bundle_per_input, write_fake_model
from multiad_med.visualize.overlay_file import read_overlay
from tests.bundles.models import infer
from tests.evaluation.reports import Reader


@pytest.mark.parametrize("bundle", one_bundle_per_input())
def test_every_bundle_leaves_a_sheet_with_all_images(bundle: str, tmp_path: Path) -> None:
    model, out = write_fake_model(bundle, tmp_path / "model.pt"), tmp_path / "out"
    data = COHORTS[bundle](tmp_path)
    rows = infer(bundle, data, model, out)
    page = (out / "summary.html").read_text()
    reader = Reader(page)
    assert "No image" not in page
    studies = json.loads((out / "summary.json").read_text())["studies"]
    assert len(reader.values("src")) == len(studies)
    links = [out / link for link in reader.values("href")]
    assert all(link.is_file() for link in links)
    end = "_anomaly.png" if bundle == "multiad_industrial" else "_anomaly_viewer.html"
    assert all(link.name.endswith(end) for link in links)
    overlay = read_overlay(next(out.rglob("*_anomaly.png")))
    if bundle == "multiad_retina_oct":  # upright: 48 columns of 0.05 mm, 64 rows of 0.01 mm
        assert overlay.width / overlay.height == pytest.approx(48 * 0.05 / (64 * 0.01), rel=0.02)
    assert np.asarray(overlay).std() > 0

    again = infer(bundle, data, model, out)
    assert {row["status"] for row in again.values()} == {"skipped"}
    assert [row["seconds"] for row in again.values()] == [row["seconds"] for row in rows.values()]
    assert (out / "summary.html").read_text() == page
