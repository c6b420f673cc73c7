"""The advice of an error is followed to the letter, and works."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiad_med.data import CacheError, DatalistError, open_slices
from multiad_med.preparation import PreparationError, RecipeError, export_png, load_recipe, prepare
from multiad_med.preparation.prepare_command import run as run_command
from multiad_med.testing.layouts import (
    make_lits,
    make_liver,
    make_mvtec,
    make_visa,
    picture,
    save_image,
)
from multiad_med.utils.errors import InputError

Make = Callable[[Path], None]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


def save_images(folder: Path, *names: str) -> None:
    for name in names:
        save_image(folder / name, picture(16, np.random.default_rng(0), defect=False)[0])


def studies(recipe: str, source: Path, **settings: Any) -> int:
    splits = load_recipe(recipe, settings).splits(source)
    return sum(map(len, splits.values()))


def liver_with_other_names(folder: Path) -> None:
    make_liver(folder, rng=np.random.default_rng(0), btcv=2, lits=1, shape=(16, 16, 4))
    (folder / "BTCV").rename(folder / "normal")
    (folder / "LiTS").rename(folder / "tumours")


def liver_with_two_of_a_kind(folder: Path) -> None:
    make_liver(folder, rng=np.random.default_rng(0), btcv=2, lits=1, shape=(16, 16, 4))
    (folder / "atlas of organs").mkdir()


def visa_of_two_classes(folder: Path) -> None:
    make_visa(folder, rng=np.random.default_rng(0))
    (folder / "split_csv/1cls.csv").rename(folder / "split_csv/own.csv")


def lits(folder: Path) -> None:
    make_lits(folder, rng=np.random.default_rng(0), volumes=3, shape=(16, 16, 4))


def two_categories(folder: Path) -> None:
    make_mvtec(folder, rng=np.random.default_rng(0), size=16)


@pytest.mark.parametrize(
    ("recipe", "make", "settings", "message", "advised", "count"),
    [
        ("liver_ct", liver_with_other_names, {}, "`btcv`",
         {"btcv": "normal", "lits": "tumours"}, 3),
        ("liver_ct_bmad", liver_with_two_of_a_kind, {}, "`btcv`", {"btcv": "BTCV"}, 3),
        ("mvtec_ad", visa_of_two_classes, {}, r"split_file.*\['own'\]",
         {"split_file": "own"}, 5),
        ("mvtec_ad", two_categories, {"categories": ["nut"]}, r"\['bottle', 'screw'\]",
         {"categories": ["screw"]}, 9),
        ("lits", lits, {"training": 0}, "training.*positive", {"training": 0.5}, 3),
    ],
)  # fmt: skip
def test_the_setting_that_an_error_names_helps(
    source: Path,
    recipe: str,
    make: Make,
    settings: dict[str, Any],
    message: str,
    advised: dict[str, Any],
    count: int,
) -> None:
    make(source)
    with pytest.raises((DatalistError, RecipeError), match=message):
        studies(recipe, source, **settings)
    assert studies(recipe, source, **settings | advised) == count


def mvtec_deep_down(folder: Path) -> None:
    make_mvtec(folder / "a/b", rng=np.random.default_rng(0), size=16)


def only_test(folder: Path) -> None:
    save_images(folder, "test/good/1.png", "test/good/2.png", "test/crack/1.png")


def normal_below(folder: Path) -> None:
    save_images(folder, "line/good/1.png", "line/good/2.png", "line/bad/1.png")


@pytest.mark.parametrize(
    ("recipe", "make", "then", "count"),
    [
        ("mvtec_ad", mvtec_deep_down, "mvtec_ad", 18),
        ("mvtec_ad", only_test, "images", 3),
        ("images", only_test, "images", 3),
        ("images", normal_below, "images", 3),
    ],
)
def test_the_folder_that_an_error_names_helps(
    source: Path, recipe: str, make: Make, then: str, count: int
) -> None:
    make(source)
    with pytest.raises(DatalistError, match=r"[Gg]ive /") as told:
        studies(recipe, source)
    found = re.search(r"[Gg]ive (/.*)\.$", str(told.value))
    assert found is not None
    assert studies(then, Path(found[1])) == count


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("name", ["good", "ok", "normal"])
def test_recipes_never_send_to_each_other_in_a_circle(source: Path, name: str, masks: bool) -> None:
    """A tree of MVTec's form, which `images` refuses, is read by the recipe that it names."""
    make_mvtec(source, rng=np.random.default_rng(0), size=16)
    for category in source.iterdir():
        (category / "train/good").rename(category / "train" / name)
        if not masks:
            shutil.rmtree(category / "ground_truth")
    with pytest.raises(DatalistError, match="use that recipe") as told:
        studies("images", source)
    assert "'mvtec_ad'" in str(told.value)
    assert studies("mvtec_ad", source) == 18


@pytest.mark.parametrize("images", [["a.png"], ["x/train/line/a.png", "x/train/line/b.png"]])
def test_what_is_no_tree_is_read_by_the_recipe_that_is_named(
    source: Path, images: list[str]
) -> None:
    save_images(source, *images)
    with pytest.raises(DatalistError, match="recipe 'images'"):
        studies("mvtec_ad", source)
    assert studies("images", source) == len(images)


def test_a_category_without_normal_images_is_helped_both_ways(source: Path) -> None:
    from multiad_med.preparation import load_images

    two_categories(source)
    shutil.rmtree(source / "screw/train/good")
    (source / "screw/train/good").mkdir()
    message = r"normal images in train/good.*\['bottle'\]"
    with pytest.raises(DatalistError, match=message):
        load_images(source)
    assert load_images(source, categories=["bottle"])["training"]
    save_images(source, "screw/train/good/1.png", "screw/train/good/2.png")
    assert {item["category"] for item in load_images(source)["training"]} == {"bottle", "screw"}


@pytest.mark.slow
def test_slices_that_do_not_fit_are_prepared_as_the_errors_say(
    source: Path, tmp_path: Path
) -> None:
    """The settings in the messages go to `multiad prepare --set` as they stand."""
    save_images(source, *(f"c/train/good/{i}.png" for i in range(4)))
    settings: list[str] = []
    for number in range(4):
        target = tmp_path / f"slices{number}"
        run_command("mvtec_ad", source, target, settings, workers=0)
        try:
            slices = open_slices(
                target,
                split="training",
                data=[],
                transform=dict,
                size=48,
                settings={"normalise_brightness": True, "colour": False},
            )
        except CacheError as error:
            settings += re.findall(r"--set (\w+=\w+)", str(error))
    assert settings == ["size=48", "normalise_brightness=true", "colour=false"]
    assert slices[0]["image"].shape == (1, 48, 48)


def test_a_comment_in_a_setting_is_put_into_quotes(source: Path, tmp_path: Path) -> None:
    save_images(source, *(f"line #1/train/good/{i}.png" for i in range(4)))
    with pytest.raises(InputError, match="quotes") as told:
        run_command("mvtec_ad", source, tmp_path / "out", ["categories=line #1"], workers=0)
    assert """categories='"line #1"'""" in str(told.value)
    run_command(
        "mvtec_ad", source, tmp_path / "out", ['categories="line #1"', "size=16"], workers=0
    )
    with (tmp_path / "out/index.csv").open(newline="") as file:
        assert {row["category"] for row in csv.DictReader(file)} == {"line #1"}


def test_bmads_split_is_left_as_the_errors_say(source: Path) -> None:
    from multiad_med.testing.layouts import make_brats

    make_brats(source, rng=np.random.default_rng(0), year="2020", studies=3)
    with pytest.raises(DatalistError, match="set spacing=null"):
        studies("brats2021", source, split="bmad", spacing=[1, 1, 1])
    with pytest.raises(DatalistError, match="Use `split=patient`"):
        studies("brats2021", source, split="bmad", spacing=None)
    assert studies("brats2021", source, split="patient") == 3


def test_another_folder_helps_where_one_is_full_or_inside(source: Path, tmp_path: Path) -> None:
    save_images(source, *(f"{i}.png" for i in range(5)))
    recipe = load_recipe("images", {"size": 16})
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    for target, message in (
        (source / "out", "outside"),
        (tmp_path / "full", r"full\b.*not empty.*another"),
    ):
        with pytest.raises(PreparationError, match=message):
            prepare(recipe, source, target, workers=0, progress=False)
    prepare(recipe, source, tmp_path / "out", workers=0, progress=False)
    with pytest.raises(CacheError, match=r"full\b.*not an empty folder.*another"):
        export_png(tmp_path / "out", tmp_path / "full", progress=False)
    assert export_png(tmp_path / "out", tmp_path / "new", progress=False) == 5
