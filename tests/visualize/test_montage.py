"""The montage shows the right slices, the right way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from multiad_med.cli import app
from multiad_med.transforms import radiological_view
from multiad_med.visualize import MontageColumn, ViewError, load_study, montage, save_montage, view
from multiad_med.visualize import viewer as command
from multiad_med.visualize.findings import Finding
from multiad_med.visualize.montage import choose_slices
from tests.visualize.studies import MARK, SHAPE, STORED, write_study


def test_highest_slices_are_apart_and_the_others_far_from_all_shown() -> None:
    values = np.full(100, 0.2)
    values[40:44] = [0.7, 0.9, 0.8, 0.7]
    values[70] = 0.6
    values[:10] = np.nan
    chosen, highest = choose_slices(values)
    # 41 and not its neighbours; 70; the first of the others. Then the middles of the largest gaps, the
    # ends of the study being 9 and 100.
    assert highest == {41, 70, 10}
    assert chosen == sorted({41, 70, 10, 25, 85, 55, 33, 17})


def test_highest_slices_are_of_distinct_findings() -> None:
    values = np.full(100, 0.2)
    values[20:60] = 0.9 - 0.001 * np.arange(40)  # one long finding, the highest below
    values[80] = 0.6
    finding = Finding(at=(0, 0, 20), value=0.9, first=20, last=59)
    assert choose_slices(values)[1] == {20, 26, 32}  # neighbours, if nothing is known
    chosen, highest = choose_slices(values, [finding])
    assert highest == {20, 80, 0}
    assert len(chosen) == 8
    assert min(np.diff(chosen)) > 1


def test_few_slices_are_all_shown() -> None:
    chosen, highest = choose_slices(np.array([0.1]))
    assert (chosen, highest) == ([0], {0})
    assert choose_slices(np.array([np.nan, np.nan]))[0] == [0, 1]


@pytest.mark.parametrize("stored", STORED)
def test_marked_voxel_is_where_a_radiologist_looks_for_it(
    tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[MontageColumn] = []
    monkeypatch.setattr(montage, "save_montage", lambda columns, *_, **__: shown.extend(columns))
    study, anomaly_map, mark = write_study(tmp_path, *STORED[stored])
    viewed = load_study(study, anomaly_map)
    montage.write_montage(viewed, tmp_path / "montage.png")
    (column,) = (c for c in shown if c.title.endswith(": 0.800"))
    number = mark[viewed.scores["axis"]]
    assert column.title == f"\N{BLACK UP-POINTING TRIANGLE} slice {number}: 0.800"
    drawn = radiological_view(column.anomaly_map, upright=column.upright)
    row, col = np.unravel_index(int(drawn.argmax()), drawn.shape)
    # Patient left (x = 5 of 24) is on the right of the image, anterior (y = 19 of 28) above.
    assert (row, col) == (SHAPE[1] - 1 - MARK[1], SHAPE[0] - 1 - MARK[0])
    assert column.spacing == pytest.approx((2.0, 2.0))


def test_images_get_a_montage_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def draw(columns: list[MontageColumn], *args: Any, **kwargs: Any) -> None:
        titles.extend(column.title for column in columns)
        save_montage(columns, *args, **kwargs)

    monkeypatch.setattr(command, "save_montage", draw)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / "nut.png")
    Image.fromarray(rng.random((20, 30), np.float32)).save(tmp_path / "nut.tiff")
    (written,) = view(tmp_path / "nut.png", tmp_path / "nut.tiff", tmp_path / "out")
    assert written.name == "montage.png"
    assert Image.open(written).width > 100
    assert titles == ["nut"]  # the study, without its file's ending
    Image.fromarray(rng.random((21, 30), np.float32)).save(tmp_path / "other.tiff")
    with pytest.raises(ViewError, match=r"float32 TIFF.*\(20, 30\)"):
        view(tmp_path / "nut.png", tmp_path / "other.tiff", tmp_path / "out")


def test_command_writes_both_files_and_tells_errors_plainly(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["view", str(study), str(anomaly_map), "--output", str(out)])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == ["montage.png", "viewer.html"]
    missing = tmp_path / "nothing.nii.gz"
    result = CliRunner().invoke(app, ["view", str(study), str(missing), "--output", str(out)])
    assert result.exit_code == 2
    assert "nothing.nii.gz does not exist" in result.output
    assert "Traceback" not in result.output
