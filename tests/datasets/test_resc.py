"""RESC: the challenge's folders, P-Net's, volumes in files, and BMAD's slices."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_bmad, find_resc
from multiad_med.testing.layouts import RESC_GREYS, make_bmad, make_pnet, make_resc

Touch = Callable[..., Path]
VOLUME = "P1830_MacularCube512x128_3-24-2016_9-32-54_OD_sn79873_cube_z"


def _challenge(numbers: range, *, labels: range) -> list[str]:
    return [f"original_images/{VOLUME}.img/{n}.bmp" for n in numbers] + [
        f"label_images/{VOLUME}_labelMark/{n}.bmp" for n in labels
    ]


def test_challenge_volumes_are_lists_of_bscans(tmp_path: Path, rng: np.random.Generator) -> None:
    make_resc(tmp_path, rng=rng, volumes={"training": 2, "validation": 1, "test": 1}, bscans=12)
    items = find_resc(tmp_path)
    assert sorted(item["split"] for item in items) == ["training", "training", "validation"]
    for item in items:
        assert [Path(p).stem for p in item["image"]] == [str(n) for n in range(1, 13)]
        assert "label" in item
        assert item["study"].startswith(f"{item['subject']}_MacularCube512x128")
        assert "anomalous" not in item
    (item,) = [item for item in items if item["split"] == "validation"]
    for image, label in zip(item["image"], item["label"], strict=True):
        assert Path(image).name == Path(label).name
    values = np.unique(np.asarray(Image.open(item["label"][-1])))
    assert set(values) == {0, *RESC_GREYS.values()}
    assert not np.asarray(Image.open(item["label"][0])).any()


def test_volumes_of_one_patient_share_their_subject(touch: Touch) -> None:
    other = VOLUME.replace("9-32-54", "9-33-19")
    folder = touch(*(f"original_images/{v}.img/1.bmp" for v in (VOLUME, other)))
    assert {(i["subject"], i["study"]) for i in find_resc(folder)} == {
        ("P1830", VOLUME),
        ("P1830", other),
    }


def test_missing_bscan_is_named(touch: Touch) -> None:
    names = _challenge(range(2, 5), labels=range(2, 5))
    with pytest.raises(DatalistError, match="1 missing"):
        find_resc(touch(*names))


def test_missing_label_is_named(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"\b1 B-scans.*no label.*img/3\.bmp"):
        find_resc(touch(*_challenge(range(1, 4), labels=range(1, 3))))


def test_volume_found_twice_is_an_error(touch: Touch) -> None:
    names = _challenge(range(1, 2), labels=range(0))
    with pytest.raises(DatalistError, match="was found twice"):
        find_resc(touch(*names, *(f"copy/{name}" for name in names)))


def test_pnet_keeps_normal_and_lesion_bscans_apart(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_pnet(tmp_path, rng=rng, volumes=1, bscans=6)
    items = {item["study"]: item for item in find_resc(tmp_path)}
    assert {name: (item["split"], item["anomalous"]) for name, item in items.items()} == {
        "test/images/case1": ("test", True),
        "test/normal_images/case1": ("test", False),
        "training/images/case0": ("training", False),
    }
    lesion = items["test/images/case1"]
    assert lesion["subject"] == items["test/normal_images/case1"]["subject"] == "case1"
    assert [Path(p).name for p in lesion["label"]] == ["3.png", "4.png", "5.png"]
    assert "label" not in items["test/normal_images/case1"]


def test_pnet_mask_that_is_missing_is_named(touch: Touch) -> None:
    folder = touch(
        "test/images/a/1.png",
        "test/images/a/2.png",
        "test/lesion_mask/a/2.png",
        "train/images/b/1.png",
    )
    with pytest.raises(DatalistError, match=r"lesion_mask/a/1\.png.*remove"):
        find_resc(folder)
    shutil.rmtree(folder / "test/lesion_mask")
    assert {item["study"]: (item["anomalous"], "label" in item) for item in find_resc(folder)} == {
        "test/images/a": (True, False),
        "training/images/b": (False, False),
    }


def test_the_challenges_volumes_are_read_without_labels(touch: Touch) -> None:
    folder = touch("Edema_trainingset/original_images/P1_MacularCube.img/1.bmp", "extra/2.bmp")
    with pytest.warns(UserWarning, match=r"\b1 images or masks.*passed over.*extra/2\.bmp"):
        (item,) = find_resc(folder)
    assert item["anomalous"]
    assert "label" not in item


@pytest.mark.parametrize("suffix", [".npy", ".nii.gz", ".dcm"])
@pytest.mark.parametrize("label", ["Edema_trainingset/a_label", "labels/a", "x/a_labelMark"])
def test_volume_in_one_file_with_its_partner(touch: Touch, suffix: str, label: str) -> None:
    folder = touch(f"Edema_trainingset/a{suffix}", f"{label}{suffix}")
    (item,) = find_resc(folder)
    assert (item["subject"], item["split"]) == ("a", "training")
    assert item["label"] == str(folder / f"{label}{suffix}")


def test_volumes_of_which_some_have_a_label_are_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"\b1 of 2 volumes.*no label.*b\.npy"):
        find_resc(touch("a.npy", "a_label.npy", "b.npy"))


def test_slices_of_bmad_are_read_too(tmp_path: Path, rng: np.random.Generator) -> None:
    make_bmad(tmp_path, rng=rng, train=1, test=1)
    items = find_resc(tmp_path)
    assert items == [item for item in find_bmad(tmp_path) if item["category"] == "resc"]
    assert items


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("BraTS2021_00000_flair.nii.gz", "brats2021"), ("volume-0.nii", "lits"), ("a.png", "images")],
)
def test_other_folders_are_told_from_resc(touch: Touch, name: str, recipe: str) -> None:
    with pytest.raises(DatalistError, match=f"no RESC volumes.*recipe '{recipe}'"):
        find_resc(touch(name))
