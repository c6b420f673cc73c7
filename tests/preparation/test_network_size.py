"""The size of the network's input: by the images' shape, the smallest defect, or as asked for."""

from __future__ import annotations

import logging
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiad_med.preparation import network_input, recommended_size
from multiad_med.preparation.network_size import fitting_size, visible_defect
from multiad_med.testing.layouts import save_image
from multiad_med.testing.slice_caches import make_cache
from multiad_med.utils import InputError


def items(folder: Path, *shapes: tuple[int, int]) -> list[dict[str, Any]]:
    """A black image of each shape."""
    paths = [folder / f"{i}.png" for i in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        save_image(path, np.zeros(shape))
    return [{"image": str(path)} for path in paths]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((256, 256), (256, 256)),
        ((1024, 1024), (256, 256)),
        ((512, 522), (256, 256)),
        # Kolektor SDD: 2.6 for 2.52, and 66,560 pixels for 65,536.
        ((630, 250), (416, 160)),
        ((250, 630), (160, 416)),
        ((480, 640), (224, 288)),
        ((1080, 1920), (192, 352)),
    ],
)
def test_the_area_of_the_square_in_the_images_shape(
    image: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitting_size(image) == expected


@pytest.mark.parametrize("columns", range(100, 1000, 75))
def test_shape_and_area_are_missed_by_no_more_than_a_sixth(columns: int) -> None:
    rows, cols = fitting_size((100, columns))
    assert rows % 32 == cols % 32 == 0
    assert abs(math.log(cols / rows * 100 / columns)) < 1 / 6
    assert abs(math.log(rows * cols / 65536)) < 1 / 6


def test_a_defect_is_seen_where_it_covers_a_location_of_4_pixels() -> None:
    assert visible_defect((256, 256), (256, 256)) == 4
    assert visible_defect((1024, 1024), (256, 256)) == 16
    # 630 rows to 416 need 6.06 pixels, 250 columns to 160 need 6.25.
    assert visible_defect((630, 250), (416, 160)) == 7


def test_the_size_grows_until_the_smallest_defect_is_seen_and_not_without_end() -> None:
    image = (630, 250)
    assert recommended_size(image) == recommended_size(image, smallest=7) == (416, 160)
    assert recommended_size(image, smallest=6) == (448, 192)  # 420 and 166.7, rounded up to 32s
    assert recommended_size(image, smallest=4) == (640, 256)
    rows, columns = recommended_size((4000, 4000), smallest=4)
    assert (rows, columns) == (512, 512)  # tiles see 4 pixels, this sees 32


def test_the_median_decides_and_what_it_can_see_is_logged_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = items(tmp_path, (630, 250), (630, 250), (640, 250))
    with caplog.at_level(logging.INFO, "multiad_med"):
        found = network_input(source=tmp_path, images=images)
    assert found == {"size": [416, 160], "aspects": [250 / 640, 250 / 630]}
    (line,) = caplog.messages
    assert "630x250 pixels" in line
    assert "416x160" in line
    assert re.search(r"\b7 pixels", line)
    assert "--smallest 4" in line


def test_what_no_size_shows_is_told_with_the_tiles_that_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = items(tmp_path, (2048, 1024))
    with caplog.at_level(logging.INFO, "multiad_med"):
        found = network_input(source=tmp_path, images=images, smallest=4)
    assert math.prod(found["size"]) <= 1.13 * 512**2
    assert re.search(r"\b4\b.*asked for", caplog.text)
    assert "--set tile=256" in caplog.text
    assert "--smallest" not in caplog.text


def test_nothing_is_advised_where_the_network_sees_each_pixel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "multiad_med"):
        assert network_input(source=tmp_path, images=items(tmp_path, (64, 64)))["size"] == 256
    assert "For smaller ones" not in caplog.text


def test_the_square_of_a_benchmark_is_taken_and_its_stretching_told(tmp_path: Path) -> None:
    images = items(tmp_path, (630, 250))
    with pytest.warns(UserWarning, match=r"stretch.*\b2\.52.*size=\[416,160\]"):
        assert network_input(source=tmp_path, images=images, size=256)["size"] == 256
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert network_input(source=tmp_path, images=images, size=[512, 208])["size"] == [512, 208]


def test_images_of_another_shape_are_told_by_name(tmp_path: Path) -> None:
    images = items(tmp_path, (100, 100), (100, 104), (100, 300))
    with pytest.warns(UserWarning, match=r"\b1 of 3 images.*2\.png \(100x300"):
        found = network_input(source=tmp_path, images=images)
    assert found == {"size": 256, "aspects": [1.0, 3.0]}


def test_unreadable_images_are_left_to_the_training(tmp_path: Path) -> None:
    images = items(tmp_path, (100, 250))
    (tmp_path / "bad.png").write_bytes(b"no image")
    images += [{"image": str(tmp_path / "bad.png")}, {"image": str(tmp_path / "gone.png")}]
    assert network_input(source=tmp_path, images=images)["size"] == [160, 416]
    assert network_input(source=tmp_path, images=images[1:]) == {"size": 256, "aspects": None}


def test_prepared_slices_have_a_size(tmp_path: Path) -> None:
    make_cache(tmp_path)
    assert network_input(source=tmp_path, images=[])["size"] == 32
    # Another one is refused where they are opened.
    assert network_input(source=tmp_path, images=[], size=64)["size"] == 64


def test_tiles_keep_the_images_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "multiad_med"):
        found = network_input(source=tmp_path, images=items(tmp_path, (630, 250)), tile=[128, 64])
    assert found == {"size": 256, "aspects": None}
    assert "tiles of 128x64 pixels" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 256}, r"size \(256\)"),
        ({"tile": 64}, r"tile \(64\)"),
        ({"cache": True}, "prepared"),
    ],
)
def test_smallest_and_something_else_that_decides_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    if options.pop("cache", False):
        make_cache(tmp_path)
    with pytest.raises(InputError, match=rf"smallest=8 decides.*{message}"):
        network_input(source=tmp_path, images=[], smallest=8, **options)


def test_sites_that_do_not_know_each_others_images_need_a_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="network's size"):
        network_input(source=tmp_path, images=[], smallest=8)
