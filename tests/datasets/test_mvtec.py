"""MVTec AD and relatives: trees, masks in every form, VisA's tables, LOCO's thresholds."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_images, find_mvtec, find_visa, loco_saturation
from multiad_med.testing.layouts import make_btad, make_loco, make_mvtec, make_visa

Touch = Callable[..., Path]
CATEGORY = ("c/train/good/000.png", "c/test/good/000.png")


def test_all_categories_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    make_mvtec(tmp_path, rng=rng, train=3, good=1, defects={"crack": 2})
    items = find_mvtec(tmp_path)
    assert Counter((i["category"], i["split"], i["kind"]) for i in items) == {
        (category, *rest): count
        for category in ("bottle", "screw")
        for rest, count in (
            (("training", "good"), 3),
            (("test", "good"), 1),
            (("test", "crack"), 2),
        )
    }
    assert items[-1]["study"] == items[-1]["subject"] == "screw/test/good/000"
    for item in items:
        assert item["anomalous"] == (item["kind"] == "crack") == ("label" in item)
    (mask, *_) = [item["label"] for item in items if "label" in item]
    assert mask.endswith("bottle/ground_truth/crack/000_mask.png")
    assert set(np.unique(np.asarray(Image.open(mask)))) == {0, 255}


def test_one_category_by_folder_or_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    make_mvtec(tmp_path, rng=rng)
    assert find_mvtec(tmp_path / "screw") == find_mvtec(tmp_path, categories=["screw"])
    with pytest.raises(DatalistError, match=r"no category \['cable'\].*\['bottle', 'screw'\]"):
        find_mvtec(tmp_path, categories=["cable"])


def test_loco_has_validation_and_several_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    make_loco(tmp_path, rng=rng)
    items = find_mvtec(tmp_path)
    assert Counter(item["split"] for item in items) == {"training": 4, "validation": 2, "test": 4}
    labels = {item["kind"]: item["label"] for item in items if item["anomalous"]}
    assert set(labels) == {"logical_anomalies", "structural_anomalies"}
    assert [Path(p).name for p in labels["logical_anomalies"]] == ["000.png", "001.png"]


def test_loco_saturation_is_by_pixel_value(tmp_path: Path, rng: np.random.Generator) -> None:
    make_loco(tmp_path, rng=rng)
    assert loco_saturation(tmp_path / "breakfast_box") == {255: (100, False), 254: (0.5, True)}


def test_loco_saturation_needs_its_file(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"defects_config\.json cannot be read"):
        loco_saturation(touch("a"))
    (touch("a") / "defects_config.json").write_text('[{"pixel_value": 255}]')
    with pytest.raises(DatalistError, match="saturation_threshold"):
        loco_saturation(touch("a"))


def test_btad_has_ok_and_ko(tmp_path: Path, rng: np.random.Generator) -> None:
    make_btad(tmp_path, rng=rng)
    items = find_mvtec(tmp_path)
    assert Counter((i["split"], i["kind"]) for i in items) == {
        ("training", "ok"): 2,
        ("test", "ok"): 2,
        ("test", "ko"): 1,
    }
    (mask,) = [item["label"] for item in items if item["anomalous"]]
    assert mask.endswith("ground_truth/ko/0000.png")


@pytest.mark.parametrize("mask", ["000_mask.png", "000.png", "000.JPG", "000/0.png"])
def test_mask_is_found_in_every_form(touch: Touch, mask: str) -> None:
    folder = touch(*CATEGORY, "c/test/bad/000.JPEG", f"c/ground_truth/bad/{mask}")
    (label,) = [item["label"] for item in find_mvtec(folder) if item["anomalous"]]
    path = str(folder / "c/ground_truth/bad" / mask)
    assert label == ([path] if "/" in mask else path)


def test_defective_image_without_mask_is_named(touch: Touch) -> None:
    folder = touch(*CATEGORY, "c/test/bad/000.png", "c/ground_truth/bad/0000.png")
    with pytest.raises(DatalistError, match=r"1 defective .*test/bad/000\.png.*000_mask"):
        find_mvtec(folder)


def test_defects_in_training_are_for_the_test_or_an_error_where_masks_may_be_theirs(
    touch: Touch,
) -> None:
    folder = touch(*CATEGORY, "c/train/bad/000.png")
    with pytest.warns(UserWarning, match=r"c/train has bad\b.*\btest\b"):
        items = find_mvtec(folder)
    moved = [item for item in items if "/train/bad/" in item["image"]]
    assert [(item["split"], item["anomalous"]) for item in moved] == [("test", True)]
    with pytest.raises(DatalistError, match="also has bad"):
        find_mvtec(touch("c/ground_truth/bad/000.png"))


def test_images_that_differ_in_suffix_only_are_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"c/train/good/000' .*twice"):
        find_mvtec(touch(*CATEGORY, "c/train/good/000.jpg"))


def test_other_folders_are_told_from_mvtec(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"train/good.*recipe 'images'"):
        find_mvtec(touch("a/b.png"))


def test_visa_follows_its_table(tmp_path: Path, rng: np.random.Generator) -> None:
    make_visa(tmp_path, rng=rng)
    items = find_mvtec(tmp_path)
    assert items == find_visa(tmp_path, categories=["candle"])
    assert Counter((i["split"], i["anomalous"]) for i in items) == {
        ("training", False): 3,
        ("test", False): 1,
        ("test", True): 1,
    }
    (item,) = [item for item in items if item["anomalous"]]
    assert item["label"] == str(tmp_path / "candle/Data/Masks/Anomaly/000.png")
    assert item["study"] == "candle/Data/Images/Anomaly/000"


def test_visa_faults_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    make_visa(tmp_path, rng=rng)
    with pytest.raises(DatalistError, match=r"split_file.*\['1cls'\]"):
        find_mvtec(tmp_path, split_file="2cls_fewshot")
    with pytest.raises(DatalistError, match=r"no category \['pcb1'\]"):
        find_mvtec(tmp_path, categories=["pcb1"])
    (tmp_path / "candle/Data/Masks/Anomaly/000.png").unlink()
    with pytest.raises(DatalistError, match=r"Masks/Anomaly/000\.png \(line 6\)"):
        find_mvtec(tmp_path)
    table = tmp_path / "split_csv/1cls.csv"
    table.write_text("object,split,label,image,mask\ncandle,train,fine,a.JPG,\n")
    with pytest.raises(DatalistError, match=r"line 2: .*'train'.*'fine'"):
        find_mvtec(tmp_path)
    table.write_text("object,split\n")
    with pytest.raises(DatalistError, match=r"columns \['label'"):
        find_mvtec(tmp_path)


def test_real_screws_are_complete(real_data: Path) -> None:
    items = find_mvtec(real_data / "industrial" / "mvtec_screw_512")
    counts = Counter((item["split"], item["anomalous"]) for item in items)
    assert counts == {("training", False): 320, ("test", False): 41, ("test", True): 119}


def test_real_images_in_two_formats(real_data: Path) -> None:
    items = find_mvtec(real_data / "industrial", categories=["hazelnut_toy"])
    counts = Counter((item["split"], item["anomalous"]) for item in items)
    assert counts == {("training", False): 28, ("test", False): 6, ("test", True): 17}
    assert all(Path(item["label"]).is_file() for item in items if item["anomalous"])


def test_images_below_a_kind_are_of_that_kind(touch: Touch) -> None:
    folder = touch(
        *CATEGORY,
        "c/train/good/monday/000.png",
        "c/test/bad/line1/000.png",
        "c/ground_truth/bad/line1/000_mask.png",
    )
    items = {item["study"]: item for item in find_mvtec(folder)}
    assert items["c/train/good/monday/000"]["split"] == "training"
    assert items["c/test/bad/line1/000"]["label"].endswith("ground_truth/bad/line1/000_mask.png")
    assert len(items) == 4


@pytest.mark.parametrize("part", ["train", "test", "validation"])
def test_loose_images_are_refused_and_the_advice_works(touch: Touch, part: str) -> None:
    folder = touch(*CATEGORY, f"c/{part}/loose.png")
    with pytest.raises(DatalistError, match=rf"\b1 images.*c/{part} .*loose\.png") as told:
        find_mvtec(folder)
    assert f"{part}/good" in str(told.value)
    (folder / f"c/{part}/good").mkdir(exist_ok=True)
    (folder / f"c/{part}/loose.png").rename(folder / f"c/{part}/good/loose.png")
    assert len(find_mvtec(folder)) == 3


def test_masks_beside_their_images_are_masks(touch: Touch) -> None:
    folder = touch(*CATEGORY, "c/test/bad/7.png", "c/test/bad/7_GT.png")
    (item,) = [item for item in find_mvtec(folder) if item["anomalous"]]
    assert item["label"] == [str(folder / "c/test/bad/7_GT.png")]


def test_a_tree_without_masks_is_read(touch: Touch) -> None:
    items = find_mvtec(touch(*CATEGORY, "c/test/bad/000.png", "d/train/good/1.png"))
    assert [i["study"] for i in items if i["anomalous"]] == ["c/test/bad/000"]
    assert not any("label" in item for item in items)


def test_missing_masks_may_be_added_or_all_removed(touch: Touch) -> None:
    folder = touch(*CATEGORY, "c/test/bad/1.png", "c/test/bad/2.png", "c/ground_truth/bad/1.png")
    with pytest.raises(DatalistError, match=rf"remove {folder}/c/ground_truth"):
        find_mvtec(folder)
    touch("c/ground_truth/bad/2_mask.png")
    assert sum("label" in item for item in find_mvtec(folder)) == 2
    shutil.rmtree(folder / "c/ground_truth")
    assert sum(item["anomalous"] for item in find_mvtec(folder)) == 2


def test_what_is_in_no_folder_that_is_read_is_told(touch: Touch) -> None:
    folder = touch(
        *CATEGORY,
        "c/extra/1.png",
        "c/train/good/2.webp",
        "c/test/bad/000.png",
        "c/ground_truth/bad/000.png",
        "c/ground_truth/bad/999_mask.png",
        "c/ground_truth/good/000.png",  # an empty mask, which nobody needs
        "no_category/1.png",
        "papers/readme.txt",
    )
    with pytest.warns(UserWarning, match="passed over") as told:
        assert len(find_mvtec(folder)) == 3
    text = "\n".join(str(one.message) for one in told)
    for part in (
        "2 images or masks",
        "extra/1.png",
        "999_mask.png",
        "2.webp",
        "no_category passed over",
    ):
        assert part in text
    for part in ("good/000.png", "papers"):
        assert part not in text


def test_upper_case_linked_dead_and_empty_files_are_all_listed(touch: Touch) -> None:
    folder = touch("c/train/good/a.PNG", "c/train/good/empty.jpg", "away/b.Tif")
    (folder / "c/train/good/gone.png").symlink_to(folder / "nowhere.png")
    (folder / "c/test").mkdir()
    (folder / "c/test/good").symlink_to(folder / "away")
    studies = sorted(item["study"] for item in find_mvtec(folder / "c"))
    assert studies == ["c/test/good/b", *(f"c/train/good/{n}" for n in ("a", "empty", "gone"))]


def test_a_tree_without_train_good_is_told_what_can_be_inferred(touch: Touch) -> None:
    folder = touch("c/test/good/1.png", "c/test/bad/1.png")
    with pytest.raises(DatalistError, match=rf"infer.*{folder}/c/test\."):
        find_mvtec(folder)
    assert len(find_images(folder / "c/test")) == 2
