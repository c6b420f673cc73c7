"""Plain folders of pictures: all normal, or sorted into sub-folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.data.layouts import find_images

Touch = Callable[..., Path]


def test_loose_pictures_are_normal(touch: Touch) -> None:
    items = find_images(touch("b10.PNG", "b2.jpg", "deep/c.tiff", "notes.txt"))
    assert [item["study"] for item in items] == ["b2", "b10", "deep/c"]
    assert all((i["section"], i["anomalous"]) == ("training", False) for i in items)
    assert all("kind" not in item for item in items)


@pytest.mark.parametrize("normal", ["normal", "Good", "ok"])
def test_other_folders_beside_the_normal_one_are_anomalous(touch: Touch, normal: str) -> None:
    items = find_images(touch(f"{normal}/a.png", "dent/a.png", "rust/x/a.png"))
    assert {item["study"]: (item["section"], item["kind"]) for item in items} == {
        f"{normal}/a": ("training", normal),
        "dent/a": ("test", "dent"),
        "rust/x/a": ("test", "rust"),
    }
    assert not any("label" in item for item in items)


@pytest.mark.parametrize("mask", ["masks/dent/a.png", "mask/a.bmp", "ground_truth/dent/a_mask.png"])
def test_masks_are_found(touch: Touch, mask: str) -> None:
    folder = touch("normal/a.png", "dent/a.jpg", mask)
    items = {item["kind"]: item for item in find_images(folder)}
    assert set(items) == {"normal", "dent"}
    assert items["dent"]["label"] == str(folder / mask)
    assert "label" not in items["normal"]


def test_masks_of_unsorted_pictures_are_no_pictures(touch: Touch) -> None:
    (item,) = find_images(touch("images/a.png", "masks/a.png"))
    assert item["study"] == "images/a"


def test_mask_missing_from_some_is_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"1 anomalous .*dent/b\.png"):
        find_images(touch("ok/a.png", "dent/a.png", "dent/b.png", "masks/a.png"))


def test_loose_pictures_beside_sorted_ones_are_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"1 pictures of neither: b\.png"):
        find_images(touch("ok/a.png", "b.png"))


def test_pictures_that_differ_in_suffix_only_are_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match="'a' was found twice"):
        find_images(touch("a.png", "a.jpg"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("bottle/train/good/0.png", "recipe 'mvtec_ad'"), ("a.txt", r"It holds 1 x \.txt")],
)
def test_other_folders_are_told_from_pictures(touch: Touch, name: str, message: str) -> None:
    with pytest.raises(DatalistError, match=message):
        find_images(touch(name))


def test_real_bscans_are_pictures_in_order(real_data: Path) -> None:
    items = find_images(real_data / "oct" / "duke_dme_subject01")
    assert len(items) == 61
    assert [Path(item["image"]).stem for item in items[:2]] == ["Subject_01_1", "Subject_01_2"]
