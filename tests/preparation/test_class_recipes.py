"""Classification data sets as anomalies, from archives as published to slices."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiad_med.data import DatalistError, SliceCache
from multiad_med.evaluation.labelled import evaluate_model
from multiad_med.preparation import Summary, load_recipe, prepare
from multiad_med.readers import ArchiveError
from multiad_med.testing.layouts import (
    make_cifar10,
    make_cifar100,
    make_class_folders,
    make_fashion_mnist,
    make_scenes,
)
from tests.bundles.models import train


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def run(recipe: str, source: Path, target: Path, **settings: Any) -> Summary:
    settings.setdefault("size", 16)
    return prepare(load_recipe(recipe, settings), source, target, workers=0, progress=False)


def kinds(target: Path, split: str, state: str) -> Counter[str]:
    return Counter(row["kind"] for row in SliceCache(target, split=split, states=[state]).index)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "make", "normal", "anomalous"),
    [
        ("fashion_mnist", make_fashion_mnist, "coat", "bag"),
        ("cifar10", make_cifar10, "cat", "ship"),
        ("intel_scenes", make_scenes, "forest", "sea"),
    ],
)
def test_one_class_against_the_rest(
    tmp_path: Path,
    rng: np.random.Generator,
    recipe: str,
    make: Callable[..., None],
    normal: str,
    anomalous: str,
) -> None:
    make(tmp_path / "in", rng=rng)
    summary = run(recipe, tmp_path / "in", tmp_path / "out", normal=normal, validation=0.3)
    assert summary.failures == []
    for split in ("training", "validation", "test"):
        assert set(kinds(tmp_path / "out", split, "normal")) == {normal}
    abnormal = kinds(tmp_path / "out", "test", "abnormal")
    assert anomalous in abnormal
    assert normal not in abnormal
    assert SliceCache(tmp_path / "out")[0]["image"].shape == (3, 16, 16)


def test_five_against_five_of_fashion_mnist_says_what_was_drawn(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_fashion_mnist(tmp_path / "in", rng=rng)
    settings = {"protocol": "halves", "normal": "even", "training_images": 10, "test_images": 10}
    run("fashion_mnist", tmp_path / "in", tmp_path / "out", **settings)
    normal = {"t-shirt_top", "pullover", "coat", "shirt", "bag"}
    assert set(kinds(tmp_path / "out", "training", "normal")) <= normal
    assert kinds(tmp_path / "out", "test", "normal") == dict.fromkeys(normal, 1)
    assert len(kinds(tmp_path / "out", "test", "abnormal")) == 5
    written = json.loads((tmp_path / "out/cache.json").read_text())["settings"]
    assert {name: written[name] for name in settings} == settings


@pytest.mark.slow
def test_an_archive_of_cifar100_is_unpacked_twice_over(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_cifar100(tmp_path / "in", rng=rng)
    archive = Path(shutil.make_archive(str(tmp_path / "cifar-100"), "gztar", tmp_path / "in"))
    classes = ["fish", "people"]
    for target in ("a", "b"):
        run("cifar100", archive, tmp_path / target, normal="fish", classes=classes)
    assert kinds(tmp_path / "a", "test", "abnormal") == {"people": 4}
    # Of one content the images are there once.
    assert len(list(tmp_path.glob("cifar-100-python-images-*"))) == 1
    with pytest.raises(DatalistError, match=r"Unknown classes \['fish', 'people'\]"):
        run("cifar100", archive, tmp_path / "c", normal=0, classes=["trees"])


def test_classes_missing_in_the_test_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    make_class_folders(tmp_path / "in", rng=rng)
    shutil.rmtree(tmp_path / "in/test/dog")
    classes = ["cat", "dog", "ship"]
    with pytest.raises(DatalistError, match=r"classes \['dog'\] for the test"):
        run("cifar10", tmp_path / "in", tmp_path / "out", normal="cat", classes=classes)
    with pytest.raises(DatalistError, match=r"normal is one class, .* got 9"):
        run("cifar10", tmp_path / "in", tmp_path / "out", normal=9, classes=["cat", "dog", "ship"])


def test_a_damaged_archive_leaves_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    make_fashion_mnist(tmp_path / "in", rng=rng)
    path = tmp_path / "in/t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArchiveError, match="t10k-images"):
        run("fashion_mnist", tmp_path / "in", tmp_path / "out", normal=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


@pytest.mark.slow
def test_slices_of_classes_train_and_each_class_has_its_figure(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_class_folders(tmp_path / "in", rng=rng, train=6)
    settings = {"normal": "cat", "classes": None, "size": 64}
    run("cifar10", tmp_path / "in", tmp_path / "out", **settings)
    train("multiad_industrial", tmp_path / "out", tmp_path / "run")
    evaluate_model(tmp_path / "out", tmp_path / "run/model.pt", tmp_path / "ev", bootstrap=5)
    found = json.loads((tmp_path / "ev/metrics.json").read_text())
    assert set(found["kinds"]) == {"dog", "ship", "mean"}
    assert found["categories"] == {}
    # Every class has as many images, so that the pooled figure is the mean over classes.
    assert found["kinds"]["mean"]["image_auroc"] == pytest.approx(found["image_auroc"])
