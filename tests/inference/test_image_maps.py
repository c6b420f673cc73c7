"""Maps of images as files, and how results are named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from PIL import Image

from multiad_med.data.study_results import StudyResults
from multiad_med.inference import SaveTiffMapd, image_maps
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.networks import tiny_multiad
from multiad_med.visualize.colours import overlaid


def anomaly_map(path: Path, values: np.ndarray) -> dict[str, torch.Tensor]:
    tensor = torch.from_numpy(values.astype(np.float32))[None, ..., None]
    return {
        "pred": MetaTensor(tensor, meta={"filename_or_obj": str(path)}),
        "slice_scores": torch.tensor([0.75]),
    }


def results(source: Path, output_dir: Path) -> StudyResults:
    return StudyResults(
        output_dir, source=source, network=tiny_multiad(), files=(".tiff", "anomaly.png")
    )


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    path = tmp_path / "in/a/000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((6, 9), 100, np.uint8)).save(path)
    return path


def test_maps_keep_every_bit_rows_and_columns(grey: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((6, 9)).astype(np.float32)
    save = SaveTiffMapd("pred", results=results(tmp_path / "in", tmp_path / "out"))
    save(anomaly_map(grey, values))
    written = tifffile.imread(tmp_path / "out/a/000.tiff")
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, values)
    assert sorted(p.name for p in (tmp_path / "out/a").iterdir()) == ["000.tiff", "000_anomaly.png"]


def test_the_overlay_tells_score_verdict_and_colours_below_the_image(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []

    def save_overlay(path: Path, shown: np.ndarray, text: str) -> None:
        captions.append(text)
        assert shown.shape == (6, 9, 3)

    monkeypatch.setattr(image_maps, "save_overlay", save_overlay)
    its = results(tmp_path / "in", tmp_path / "out")
    its.network.card.levels = {level: NormalScores((0.5,) * 19, 0.05) for level in Level}
    SaveTiffMapd("pred", results=its)(anomaly_map(grey, np.zeros((6, 9))))
    # 0.75 lies above all 19 normal scores: p = 1/20; the threshold lies just above 0.5.
    (caption,) = captions
    assert re.search(r"\b0\.750\b.*\b0\.05\b.*\b0\.500\b.*: anomalous$", caption)


def test_overlay_is_the_image_where_the_map_is_low_and_a_line_around_what_is_high() -> None:
    image = np.full((20, 20, 3), 90, np.uint8)
    heat = np.full((20, 20), 0.3, np.float32)
    heat[8:12, 8:12] = 0.9
    shown = overlaid(image, heat)
    assert (shown[0, 0] == 90).all()
    assert (shown[7, 8:12] == 255).all()
    assert (shown[6, 8:12] == 255).all()
    assert (shown[9, 9] != 90).any()
    assert len(np.unique(overlaid(image, np.full((20, 20), 0.39, np.float32)))) == 1


def test_a_map_of_another_size_is_refused(grey: Path, tmp_path: Path) -> None:
    save = SaveTiffMapd("pred", results=results(tmp_path / "in", tmp_path / "out"))
    with pytest.raises(ValueError, match=r"map.*\(9, 6\).*image.*\(6, 9\)"):
        save(anomaly_map(grey, np.zeros((9, 6))))
    assert not (tmp_path / "out").exists()


def test_maps_do_not_lie_beside_images(grey: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="output_dir"):
        results(tmp_path / "in", tmp_path / "in")
