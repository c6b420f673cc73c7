"""BMAD: its spellings of folders, its patients, and the identifiers of its brain set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_bmad
from multiad_med.testing.layouts import make_bmad

Touch = Callable[..., Path]
SPLITS = Path(__file__).parents[2] / "preprocessing" / "splits"


@pytest.mark.parametrize("spelling", ["release", "script", "mirror"])
def test_every_spelling_gives_the_same_studies(
    tmp_path: Path, rng: np.random.Generator, spelling: str
) -> None:
    make_bmad(tmp_path, rng=rng, spelling=spelling, train=2, test=1)
    items = find_bmad(tmp_path)
    assert Counter((i["category"], i["split"], i["anomalous"]) for i in items) == {
        (category, *rest): count
        for category in ("brain", "liver", "resc")
        for rest, count in (
            (("training", False), 4),
            (("validation", False), 2),
            (("validation", True), 2),
            (("test", False), 2),
            (("test", True), 2),
        )
    }
    for item in items:
        assert ("label" in item) == item["anomalous"]
        if item["anomalous"]:
            assert Path(item["label"]).name == Path(item["image"]).name
            assert item["label"] != item["image"]
    studies = sorted(item["study"] for item in items)
    assert studies[:2] == ["brain/test/good/00005_60", "brain/test/good/00005_68"]


def test_one_category_can_be_given_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    make_bmad(tmp_path, rng=rng, train=1, test=1)
    items = find_bmad(tmp_path / "Liver_AD" / "hist_DIY")
    assert {item["category"] for item in items} == {"liver"}
    assert items == [i for i in find_bmad(tmp_path) if i["category"] == "liver"]


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("Brain_AD/train/good/00753_60.png", "00753"),
        ("Liver_AD/hist_DIY/train/good/img_0001_77_hist.png", "btcv-0001"),
        ("Liver_AD/hist_DIY/train/good/1_77.png", "btcv-1"),
        ("Liver_AD/hist_DIY/valid/img/good/10_432.png", "lits-10"),
        ("Retina_RESC_AD/RESC/train/good/9_28.png", "trainingset-9"),
        ("Retina_RESC_AD/RESC/val/good/img/9_28.png", "validationset-9"),
        ("Retina_RESC_AD/RESC/test/good/img/9_28.png", "validationset-9"),
        ("OCT2017/test/Ungood/img/CNV-6294785-1.jpeg", "6294785"),
        ("Chest_AD/Chest-RSNA/train/good/Normal-ff8d7572.png", "Normal-ff8d7572"),
        ("camelyon16_256/valid/good/img/1114.png", "histopathology/validation/good/1114"),
        ("Brain_AD/train/good/other.png", "brain/training/good/other"),
    ],
)
def test_subject_is_read_from_the_file_name(touch: Touch, path: str, subject: str) -> None:
    (item,) = find_bmad(touch(path))
    assert item["subject"] == subject


def test_sets_without_masks_have_anomalous_images_without_label(touch: Touch) -> None:
    (item,) = find_bmad(touch("Chest_AD/test/Ungood/img/Lung_Opacity_1.png"))
    assert item["anomalous"] is True
    assert "label" not in item


def test_anomalous_slice_without_mask_is_named(touch: Touch) -> None:
    folder = touch(
        "Brain_AD/test/Ungood/img/00001_60.png", "Brain_AD/test/Ungood/label/00002_60.png"
    )
    with pytest.raises(DatalistError, match=r"1 anomalous .*00001_60\.png"):
        find_bmad(folder)


def test_slice_found_twice_is_an_error(touch: Touch) -> None:
    names = [f"{root}/train/good/00001_60.png" for root in ("Brain_AD", "copy/Brain")]
    with pytest.raises(DatalistError, match=r"brain/training/good/00001_60' .*twice"):
        find_bmad(touch(*names))


def test_tree_of_another_set_is_not_bmad(touch: Touch) -> None:
    with pytest.raises(DatalistError, match="recipe 'mvtec_ad'"):
        find_bmad(touch("bottle/train/good/000.png"))


def test_brain_identifiers_are_complete_and_disjoint() -> None:
    splits = json.loads((SPLITS / "bmad_brain.json").read_text())
    lists = {name: ids for name, ids in splits.items() if isinstance(ids, list)}
    assert {name: len(ids) for name, ids in lists.items()} == {
        "training": 424,
        "validation_normal": 39,
        "test_normal": 162,
    }
    assert all(len(set(ids)) == len(ids) for ids in lists.values())
    assert not any(set(a) & set(b) for a, b in combinations(lists.values(), 2))
    assert all(len(i) == 5 and i.isdecimal() for ids in lists.values() for i in ids)
    assert "DorisBao/BMAD" in splits["source"]


def test_a_set_without_masks_is_read(touch: Touch) -> None:
    items = find_bmad(touch("Brain_AD/test/Ungood/img/1_60.png", "Brain_AD/train/good/2_60.png"))
    assert [(item["anomalous"], "label" in item) for item in items] == [
        (True, False),
        (False, False),
    ]


def test_images_whose_folders_tell_nothing_are_told(touch: Touch) -> None:
    folder = touch(
        "Brain_AD/train/good/1_60.png",
        "Brain_AD/extra/2_60.png",
        "Brain_AD/test/good/img/3_60.png",
        "Brain_AD/test/good/label/3_60.png",
    )
    with pytest.warns(UserWarning, match=r"\b1 images or masks.*2_60\.png"):
        assert len(find_bmad(folder)) == 2
