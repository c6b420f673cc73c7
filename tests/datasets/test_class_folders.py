"""Folders of classes: parts, classes and what lies beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_classes
from multiad_med.testing.layouts import make_scenes

Touch = Callable[..., Path]


def test_parts_and_classes_are_read(touch: Touch) -> None:
    items = find_classes(
        touch("set/Train/dog/1.png", "set/Train/cat/fine/2.png", "set/test/dog/1.png")
    )
    assert [(item["study"], item["split"], item["kind"]) for item in items] == [
        ("train/cat/fine/2", "training", "cat"),
        ("train/dog/1", "training", "dog"),
        ("test/dog/1", "test", "dog"),
    ]
    assert not any("anomalous" in item for item in items)


def test_a_class_inside_a_class_may_have_the_name_of_a_part(touch: Touch) -> None:
    """CIFAR-100 has trains among the vehicles."""
    items = find_classes(touch("train/vehicles/train/1.png", "test/vehicles/train/2.png"))
    assert {(item["split"], item["kind"]) for item in items} == {
        ("training", "vehicles"),
        ("test", "vehicles"),
    }


def test_scenes_are_read_without_seg_pred(tmp_path: Path, rng: np.random.Generator) -> None:
    make_scenes(tmp_path, rng=rng)
    items = find_classes(tmp_path)
    assert Counter(item["split"] for item in items) == {"training": 18, "test": 6}
    assert {item["kind"] for item in items} == {
        "buildings", "forest", "glacier", "mountain", "sea", "street",
    }  # fmt: skip


def test_images_of_no_class_are_told(touch: Touch) -> None:
    with pytest.warns(UserWarning, match=r"1 images or masks of .*train/loose\.png"):
        find_classes(touch("train/a/1.png", "test/a/1.png", "train/loose.png"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/a/1.png",), "no images in train/<class> and in test/<class>"),
        (("a/1.png",), "It looks like the data of recipe 'images'"),
        (("cifar-10-python.tar.gz",), "cifar-10-python.tar.gz. Give that file as the source"),
    ],
)
def test_what_is_no_such_data_set_is_refused(
    touch: Touch, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DatalistError, match=message):
        find_classes(touch(*names))


def test_one_image_in_two_forms_is_an_error(touch: Touch) -> None:
    with pytest.raises(DatalistError, match="'train/a/1' was found twice"):
        find_classes(touch("train/a/1.png", "train/a/1.jpg", "test/a/1.png"))
