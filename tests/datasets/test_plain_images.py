"""Plain folders of images: all normal, or sorted into sub-folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_images

Touch = Callable[..., Path]


def test_loose_images_are_normal(touch: Touch) -> None:
    items = find_images(touch("b10.PNG", "b2.jpg", "deep/c.tiff", "notes.txt"))
    assert [item["study"] for item in items] == ["b2", "b10", "deep/c"]
    assert not any(item["anomalous"] or "split" in item or "kind" in item for item in items)


@pytest.mark.parametrize("normal", ["normal", "Good", "ok"])
def test_other_folders_beside_the_normal_one_are_anomalous(touch: Touch, normal: str) -> None:
    items = find_images(touch(f"{normal}/a.png", "dent/a.png", "rust/x/a.png"))
    assert {item["study"]: (item.get("split"), item["kind"]) for item in items} == {
        f"{normal}/a": (None, normal),
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


def test_masks_of_unsorted_images_are_no_images(touch: Touch) -> None:
    folder = touch("images/a.png", "masks/a.png")
    with pytest.warns(UserWarning, match=r"\b1 masks passed over.*\b1 images.*normal"):
        (item,) = find_images(folder)
    assert item["study"] == "images/a"


def test_mask_missing_from_some_is_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"1 anomalous .*dent/b\.png"):
        find_images(touch("ok/a.png", "dent/a.png", "dent/b.png", "masks/a.png"))


def test_loose_images_beside_sorted_ones_are_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"\b1 images.*\bb\.png"):
        find_images(touch("ok/a.png", "b.png"))


def test_images_that_differ_in_suffix_only_are_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"'a' .*twice"):
        find_images(touch("a.png", "a.jpg"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("bottle/train/good/0.png", "recipe 'mvtec_ad'"), ("a.txt", r"\b1 x \.txt")],
)
def test_other_folders_are_told_from_images(touch: Touch, name: str, message: str) -> None:
    with pytest.raises(DatalistError, match=message):
        find_images(touch(name))


def test_real_bscans_are_images_in_order(real_data: Path) -> None:
    items = find_images(real_data / "oct" / "duke_dme_subject01")
    assert len(items) == 61
    assert [Path(item["image"]).stem for item in items[:2]] == ["Subject_01_1", "Subject_01_2"]


# The image is `a.*`, `a_image.*` or `a_img.*` beside it.
@pytest.mark.parametrize(
    "mask",
    [
        "a_mask.png",
        "a_MASK.PNG",
        "a-gt.bmp",
        "a_label.png",
        "a_seg.tif",
        "mask_a.png",
        "a.mask2.png",
    ],
)
def test_masks_beside_their_images_are_masks(touch: Touch, mask: str) -> None:
    folder = touch("good/a.png", "NG/a.jpg", f"NG/{mask}", "NG/b_image.png", "NG/b_mask.png")
    items = {item["study"]: item for item in find_images(folder)}
    assert set(items) == {"good/a", "NG/a", "NG/b_image"}
    assert items["NG/a"]["label"] == [str(folder / "NG" / mask)]
    assert items["NG/b_image"]["label"] == [str(folder / "NG/b_mask.png")]


def test_masks_beside_normal_images_are_no_images(touch: Touch) -> None:
    items = find_images(touch("good/a.png", "good/a_mask.png", "NG/b.png"))
    assert [item["study"] for item in items] == ["NG/b", "good/a"]
    assert not any("label" in item for item in items)


def test_images_of_labels_are_images(touch: Touch) -> None:
    items = find_images(touch("front_label.png", "label_1.png", "mask.png", "unmasked.png"))
    assert len(items) == 4


def test_a_mask_without_its_image_is_refused_and_the_advice_works(touch: Touch) -> None:
    folder = touch("good/a.png", "NG/b.png", "NG/c_mask.png")
    with pytest.raises(DatalistError, match=r"\b1 files.*masks.*c_mask\.png"):
        find_images(folder)
    (folder / "NG/c_mask.png").rename(folder / "NG/b_mask.png")
    assert [item["study"] for item in find_images(folder)] == ["NG/b", "good/a"]


def test_masks_missing_from_some_may_be_added_or_all_removed(touch: Touch) -> None:
    folder = touch("ok/a.png", "dent/a.png", "dent/b.png", "masks/dent/a.png")
    with pytest.raises(DatalistError, match=r"dent/b\.png\..*mask beside"):
        find_images(folder)
    touch("dent/b_mask.png")
    assert sum("label" in item for item in find_images(folder)) == 2
    for mask in ("dent/b_mask.png", "masks/dent/a.png"):
        (folder / mask).unlink()
    assert len(find_images(folder)) == 3


def test_a_normal_folder_deeper_down_is_refused_and_the_advice_works(touch: Touch) -> None:
    folder = touch("test/good/a.png", "test/dent/b.png")
    with pytest.raises(DatalistError, match=rf"Give {folder}/test\."):
        find_images(folder)
    assert [item["anomalous"] for item in find_images(folder / "test")] == [True, False]


def test_upper_case_linked_dead_and_empty_files_are_all_listed(touch: Touch) -> None:
    folder = touch("in/a.PNG", "in/b.JPeG", "in/empty.TIF", "elsewhere/c.BMP")
    (folder / "in/gone.png").symlink_to(folder / "nowhere.png")
    (folder / "in/linked").symlink_to(folder / "elsewhere")
    studies = [item["study"] for item in find_images(folder / "in")]
    assert sorted(studies) == ["a", "b", "empty", "gone", "linked/c"]


def test_a_link_to_what_is_read_already_is_told(touch: Touch) -> None:
    folder = touch("a/x.png")
    (folder / "b").symlink_to(folder / "a")
    with pytest.warns(UserWarning, match=rf"{folder}/(a|b) passed over.*link.*{folder}/(a|b)"):
        assert len(find_images(folder)) == 1


def test_images_of_kinds_that_are_not_read_are_told(touch: Touch) -> None:
    with pytest.warns(UserWarning, match=r"\b1 images.*passed over.*b\.webp"):
        assert len(find_images(touch("a.png", "b.webp", "notes.txt"))) == 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["train/a.png", "test/good/b.png", "test/dent/c.png"],
            {"train/a": "training", "test/good/b": "test", "test/dent/c": "test"},
        ),
        (
            ["good/Training/a.png", "good/test/b.png", "dent/test/c.png"],
            {"good/Training/a": "training", "good/test/b": "test", "dent/test/c": "test"},
        ),
        (
            ["good/a.png", "test/ok/b.png", "test/dent/c.png"],
            {"good/a": None, "test/ok/b": "test", "test/dent/c": "test"},
        ),
        (
            ["train/a.png", "val/b.png", "test/c.png"],
            {"train/a": "training", "val/b": "validation", "test/c": "test"},
        ),
    ],
)
def test_folders_of_parts_say_what_is_tested(
    touch: Touch, names: list[str], expected: dict[str, str | None]
) -> None:
    items = find_images(touch(*names))
    assert {item["study"]: item.get("split") for item in items} == expected
    assert [i["study"] for i in items if i["anomalous"]] == [n for n in expected if "dent" in n]


def test_other_folders_of_a_test_beside_loose_training_images_are_anomalous(touch: Touch) -> None:
    items = find_images(touch("train/a.png", "test/NG/b.png", "ground_truth/NG/b_mask.png"))
    assert [(i["study"], i["anomalous"], "label" in i) for i in items] == [
        ("test/NG/b", True, True),
        ("train/a", False, False),
    ]


def test_an_empty_normal_folder_is_refused_and_the_advice_works(touch: Touch) -> None:
    folder = touch("good/notes.txt", "bad/a.png")
    with pytest.raises(DatalistError, match="good holds no images"):
        find_images(folder)
    touch("good/b.png")
    assert [item["anomalous"] for item in find_images(folder)] == [True, False]


def test_a_folder_called_bad_without_a_good_one_is_told(touch: Touch) -> None:
    with pytest.warns(UserWarning, match=r"named bad\b.*\b2 images.*normal"):
        find_images(touch("bad/a.png", "more/b.png"))


def test_a_normal_folder_below_an_anomalous_one_is_refused(touch: Touch) -> None:
    with pytest.raises(DatalistError, match="normal images in line1/good"):
        find_images(touch("good/a.png", "line1/good/b.png"))
