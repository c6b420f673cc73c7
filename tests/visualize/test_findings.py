"""Findings, the worst slice and the body of a study, as counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from multiad_med.visualize import ViewedStudy, load_study
from multiad_med.visualize.findings import Finding, body_box, find, worst_slice
from tests.visualize.studies import MARK, SHAPE, volumes, write_study


@pytest.fixture
def study(tmp_path: Path) -> ViewedStudy:
    return load_study(*write_study(tmp_path)[:2])


def test_findings_are_connected_parts_the_highest_first(study: ViewedStudy) -> None:
    heat = np.full((10, 10, 8), 0.1, np.float32)
    heat[1, 1, 1:4] = [0.5, 0.6, 0.55]
    heat[2, 2, 4] = 0.58  # touches the one before at a corner
    heat[8, 8, 6] = 0.9
    heat[5, 5, 5] = 0.499
    assert find(replace(study, anomaly_map=heat)) == [
        Finding(at=(8, 8, 6), value=pytest.approx(0.9), first=6, last=6),
        Finding(at=(1, 1, 2), value=pytest.approx(0.6), first=1, last=4),
    ]
    assert find(replace(study, anomaly_map=heat * 0)) == []


def test_the_worst_slice_is_that_of_the_highest_score(study: ViewedStudy) -> None:
    assert worst_slice(study) == MARK[2]
    low = replace(study, scores={}, anomaly_map=study.anomaly_map[..., ::-1])
    assert worst_slice(low) == SHAPE[2] - 1 - MARK[2]  # without scores, by the map


@pytest.mark.parametrize("ct", [False, True])
def test_the_box_holds_the_body_without_noise_and_table(study: ViewedStudy, ct: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 5, (100, 80, 6)).astype(np.int16)
    image[20:70, 30:60, 2:4] = 100
    image[10:90, 5:8] = 60  # a table, apart from the body
    if ct:
        image = (image * 10 - 1000).astype(np.int16)
    shown = replace(
        study,
        image=image,
        anomaly_map=np.zeros(image.shape, np.float32),
        limits=(-160, 240) if ct else (0, 100),
        hounsfield=ct,
    )
    # 50 x 30, and around it a voxel and 4 % of 49 and 29, rounded down.
    assert body_box(shown) == (slice(18, 72 + 1 - 1), slice(28, 62))
    far = shown.anomaly_map.copy()
    far[95, 75, 0] = 0.6  # findings are never cut off
    columns, rows = body_box(replace(shown, anomaly_map=far))
    assert columns.stop > 95
    assert rows.stop > 75


def test_the_box_of_an_empty_study_and_of_bscans_is_the_whole(study: ViewedStudy) -> None:
    whole = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    assert body_box(replace(study, bscans=True)) == whole
    empty = replace(study, image=0 * volumes()[0], limits=(0.0, 1.0))
    columns, rows = body_box(empty)
    assert (columns.start, rows.start) == (0, 0)
    assert (columns.stop, rows.stop) >= SHAPE[:2]
