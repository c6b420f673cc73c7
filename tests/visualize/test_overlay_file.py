"""Overlays as files: the image as it is, and below it what it means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiad_med.visualize.overlay_file import read_overlay, save_overlay


@pytest.mark.parametrize("width", [3, 320, 2000])
def test_the_caption_lies_below_and_changes_no_pixel(tmp_path: Path, width: int) -> None:
    shown = np.random.default_rng(0).integers(0, 256, (40, width, 3), np.uint8)
    save_overlay(tmp_path / "x.png", shown, "score 0.7: anomalous")
    whole = np.asarray(Image.open(tmp_path / "x.png"))
    assert whole.shape[1] == max(width, 320)
    np.testing.assert_array_equal(whole[:40, :width], shown)
    np.testing.assert_array_equal(np.asarray(read_overlay(tmp_path / "x.png")), shown)
    assert (whole[40:] == 255).any()  # letters


def test_the_caption_has_the_colours_of_the_map_over_grey(tmp_path: Path) -> None:
    from matplotlib import colormaps

    save_overlay(tmp_path / "x.png", np.zeros((10, 720, 3), np.uint8), "score")
    # Two margins of 8 and a line of 19 below the image; the bar is 300 wide and 10 high.
    bar = np.asarray(Image.open(tmp_path / "x.png"))[10 + 2 * 8 + 19 + 5, 8:308].astype(int)
    assert bar[0].tolist() == [115, 115, 115]  # 0.4: 45 % of white alone
    brightest = 255 * (0.8 * np.array(colormaps["inferno"](1.0)[:3]) + 0.2 * 0.45)
    np.testing.assert_allclose(bar[-1], brightest, atol=1)


def test_a_long_verdict_is_broken_into_lines(tmp_path: Path) -> None:
    for name, text in (("short", "normal"), ("long", "no verdict: too few normal volumes " * 3)):
        save_overlay(tmp_path / f"{name}.png", np.zeros((10, 400, 3), np.uint8), text)
    heights = [Image.open(tmp_path / f"{name}.png").height for name in ("short", "long")]
    assert heights[1] >= heights[0] + 19


def test_an_overlay_of_an_older_version_is_read_whole(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "x.png")
    assert read_overlay(tmp_path / "x.png").size == (7, 5)
