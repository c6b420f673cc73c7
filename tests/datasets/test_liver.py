"""LiTS, BTCV, and both together."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_btcv, find_lits, find_liver
from multiad_med.testing.layouts import make_btcv, make_lits, make_liver

SHAPE = (24, 24, 8)
Touch = Callable[..., Path]


def _values(path: str) -> set[int]:
    return set(np.unique(np.asarray(nib.load(path).dataobj)).tolist())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_lits_is_read_over_its_batches(
    tmp_path: Path, rng: np.random.Generator, suffix: str
) -> None:
    make_lits(tmp_path, rng=rng, volumes=3, tests=1, shape=SHAPE, suffix=suffix)
    items = find_lits(tmp_path)
    assert [item["study"] for item in items] == [
        "volume-0",
        "volume-1",
        "volume-2",
        "test-volume-0",
    ]
    assert all(item["label"] == item["organ"] for item in items[:3])
    assert [_values(item["label"]) for item in items[:2]] == [{0, 1}, {0, 1, 2}]
    assert [item.get("split") for item in items] == [None, None, None, "test"]
    assert "label" not in items[3]


def test_lits_volumes_are_in_the_order_of_their_numbers(touch: Touch) -> None:
    names = [f"{part}-{n}.nii" for n in (10, 2) for part in ("volume", "segmentation")]
    assert [item["study"] for item in find_lits(touch(*names))] == ["volume-2", "volume-10"]


def test_lits_segmentation_may_lie_elsewhere(touch: Touch) -> None:
    folder = touch("volume_pt1/volume-0.nii", "segmentations/segmentation-0.nii")
    assert find_lits(folder)[0]["label"] == str(folder / "segmentations/segmentation-0.nii")


def test_lits_of_the_decathlon(touch: Touch) -> None:
    folder = touch(
        "imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", "imagesTs/liver_132.nii.gz"
    )
    labelled, unlabelled = find_lits(folder)
    assert labelled["label"].endswith("labelsTr/liver_0.nii.gz")
    assert unlabelled["split"] == "test"


def test_lits_without_segmentation_is_listed_without_masks_and_told(
    touch: Touch, caplog: pytest.LogCaptureFixture
) -> None:
    items = find_lits(touch("volume-3.nii", "volume-4.nii", "segmentation-4.nii"))
    assert [{"label", "organ"} <= set(item) for item in items] == [False, True]
    assert re.search(r"\b1 of 2 volumes\b.*no segmentation-", caplog.text)
    assert "volume-3.nii" in caplog.text


def test_lits_volume_found_twice_is_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"volume 0\b.*twice"):
        find_lits(touch("a/volume-0.nii", "b/volume-0.nii.gz"))


@pytest.mark.parametrize("naming", ["img", "averaged", "decathlon", "nnunet"])
def test_btcv_is_read_in_every_naming(
    tmp_path: Path, rng: np.random.Generator, naming: str
) -> None:
    make_btcv(tmp_path, rng=rng, volumes=2, shape=SHAPE, naming=naming)
    items = find_btcv(tmp_path)
    assert len({item["subject"] for item in items}) == 2
    for item in items:
        assert _values(item["organ"]) == {0, 1, 6, 8}
        assert "label" not in item
        assert item["image"] != item["organ"]


def test_btcv_test_volumes_have_no_organs(tmp_path: Path, rng: np.random.Generator) -> None:
    make_btcv(tmp_path, rng=rng, volumes=1, tests=1, shape=SHAPE)
    test, training = find_btcv(tmp_path)
    assert (test["study"], test["split"], "organ" in test) == ("img0061", "test", False)
    assert (training["study"], "split" in training) == ("img0001", False)


def test_btcv_training_volume_without_organs_is_listed_and_told(
    touch: Touch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = touch("img/img0001.nii.gz", "label/label0001.nii.gz", "img/img0002.nii.gz")
    assert ["organ" in item for item in find_btcv(folder)] == [True, False]
    assert "img0002.nii.gz" in caplog.text


def test_btcv_case_found_twice_is_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match="0001 was found twice"):
        find_btcv(touch("a/img/img0001.nii.gz", "b/img/img0001.nii.gz"))


@pytest.mark.parametrize(("reader", "recipe"), [(find_lits, "btcv"), (find_btcv, "lits")])
def test_each_tells_the_other(touch: Touch, reader: Callable, recipe: str) -> None:
    name = {"btcv": "img/img0001.nii.gz", "lits": "volume-0.nii"}[recipe]
    with pytest.raises(DatalistError, match=f"recipe '{recipe}'"):
        reader(touch(name))


def test_liver_trains_on_btcv_and_tests_on_lits(tmp_path: Path, rng: np.random.Generator) -> None:
    make_liver(tmp_path, rng=rng, btcv=2, lits=2, shape=SHAPE)
    items = find_liver(tmp_path)
    assert [(item["split"], item["subject"]) for item in items] == [
        ("training", "btcv-img0001"),
        ("training", "btcv-img0002"),
        ("test", "lits-volume-0"),
        ("test", "lits-volume-1"),
    ]
    assert all(item["study"] == item["subject"] for item in items)


def test_liver_leaves_out_volumes_without_the_masks_it_needs(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_btcv(tmp_path / "Altas", rng=rng, volumes=1, tests=1, shape=SHAPE)
    make_lits(tmp_path / "LiTs", rng=rng, volumes=1, tests=1, shape=SHAPE)
    assert [item["subject"] for item in find_liver(tmp_path)] == ["btcv-img0001", "lits-volume-0"]


def test_liver_folders_can_be_named(tmp_path: Path, rng: np.random.Generator) -> None:
    make_liver(tmp_path / "x", rng=rng, btcv=1, lits=1, shape=SHAPE)
    (tmp_path / "x/BTCV").rename(tmp_path / "a")
    with pytest.raises(DatalistError, match="btcv"):
        find_liver(tmp_path / "x")
    assert len(find_liver(tmp_path / "x", btcv=str(tmp_path / "a"), lits="LiTS")) == 2


def test_liver_with_two_candidates_asks_which(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"BTCV, btcv_old.*`btcv`"):
        find_liver(touch("BTCV/a", "btcv_old/a"))
