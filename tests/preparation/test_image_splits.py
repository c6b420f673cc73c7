"""Which images train, which calibrate, which are looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiad_med.data import DatalistError, study_root
from multiad_med.data.image_hashes import image_hash
from multiad_med.networks import build_multiad
from multiad_med.preparation import load_images
from multiad_med.testing.layouts import make_mvtec, picture, save_image
from multiad_med.training import save_model


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    make_mvtec(tmp_path / "mvtec", rng=np.random.default_rng(0), size=8, train=10)
    return tmp_path / "mvtec"


def names(items: list[dict[str, Any]], folder: Path) -> list[str]:
    return [Path(item["image"]).relative_to(folder).as_posix() for item in items]


def save_images(folder: Path, *paths: str) -> Path:
    rng = np.random.default_rng(0)
    for path in paths:
        save_image(folder / path, picture(8, rng, defect=False)[0])
    return folder


def test_a_share_of_the_normal_training_images_calibrates_and_never_the_test(
    mvtec: Path,
) -> None:
    splits = load_images(mvtec, validation=0.2)
    assert {name: len(items) for name, items in splits.items()} == {
        "training": 16, "validation": 4, "test": 10,
    }  # fmt: skip
    for split in ("training", "validation"):
        assert all("/train/good/" in item["image"] for item in splits[split])
        assert {item["category"] for item in splits[split]} == {"bottle", "screw"}
    assert all("/test/" in item["image"] for item in splits["test"])


def test_one_category_is_chosen_by_its_folder_or_by_its_name(mvtec: Path) -> None:
    assert load_images(mvtec / "screw") == load_images(mvtec, categories=["screw"])


def test_a_plain_folder_trains_on_all_and_looks_at_all(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "p", *(f"line{i}/{j}.png" for i in range(2) for j in range(5)))
    splits = load_images(folder)
    assert {name: len(items) for name, items in splits.items()} == {
        "training": 9, "validation": 1, "test": 10,
    }  # fmt: skip


def test_a_sorted_folder_trains_on_its_normal_images_only(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "p", "ok/0.png", "ok/1.png", "broken/0.png")
    splits = load_images(folder)
    trained = names(splits["training"] + splits["validation"], folder)
    assert sorted(trained) == ["ok/0.png", "ok/1.png"]
    assert names(splits["test"], folder) == ["broken/0.png", "ok/0.png", "ok/1.png"]


def test_a_datalist_counts_and_its_categories_can_be_chosen(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "p", "a.png", "b.png")
    items = [{"image": f"{c}.png", "subject": c, "category": f"part {c}"} for c in "ab"]
    (folder / "datalist.json").write_text(json.dumps({"training": items}))
    assert len(load_images(folder)["training"]) == 2
    chosen = load_images(folder, categories=["part b"])["training"]
    assert names(chosen, folder) == ["b.png"]
    with pytest.raises(DatalistError, match=r"no category \['c'\].*\['part a', 'part b'\]"):
        load_images(folder, categories=["c"])


def test_what_cannot_be_used_is_refused_by_name(mvtec: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    plain = save_images(tmp_path / "p", "a.png", "b.png")
    for folder, options, message in (
        (tmp_path / "empty", {}, "no files"),
        (tmp_path / "nowhere", {}, "does not exist"),
        (mvtec, {"categories": ["nut"]}, r"no category \['nut'\].*\['bottle', 'screw'\]"),
        (plain, {"categories": ["nut"]}, r"no category \['nut'\].*none"),
    ):
        with pytest.raises(DatalistError, match=message):
            load_images(folder, **options)


@pytest.mark.parametrize("depth", ["category", "root"])
def test_a_tree_without_train_good_is_not_taken_for_a_folder_of_normal_images(
    mvtec: Path, depth: str
) -> None:
    for category in ("bottle", "screw"):
        shutil.rmtree(mvtec / category / "train")
    with pytest.raises(DatalistError, match="train/good"):
        load_images(mvtec / "screw" if depth == "category" else mvtec)


def test_a_category_without_normal_images_is_named(mvtec: Path) -> None:
    for path in (mvtec / "screw/train/good").iterdir():
        path.unlink()
    with pytest.raises(DatalistError, match=r"normal.*\['screw'\]"):
        load_images(mvtec)
    assert load_images(mvtec, categories=["bottle"])["training"]


def test_root_of_the_studies_names(tmp_path: Path) -> None:
    def item(path: str, study: str) -> dict[str, str]:
        return {"image": f"{tmp_path}/{path}", "study": study}

    one = item("mvtec/screw/test/crack/0.png", "screw/test/crack/0")
    two = item("mvtec/nut/test/good/1.png", "nut/test/good/1")
    assert study_root([one], "given") == f"{tmp_path}/mvtec"
    assert study_root([one, two], "given") == f"{tmp_path}/mvtec"
    # Names of two trees, or none: what was given.
    assert study_root([one, item("other/1.png", "1")], "given") == "given"
    assert study_root([{"image": f"{tmp_path}/a/1.png"}], "given") == "given"


def test_maps_of_an_earlier_inference_are_no_images(tmp_path: Path) -> None:
    save_images(tmp_path, "a.png", "maps/a.tiff", "maps/a_anomaly.png")
    assert len(load_images(tmp_path)["test"]) == 3
    (tmp_path / "maps" / "a_anomaly.json").write_text("{}")
    assert [i["image"] for i in load_images(tmp_path)["test"]] == [str(tmp_path / "a.png")]


@pytest.mark.parametrize("name", ["a.png", "B.TIFF"])
def test_a_single_image_is_inferred(tmp_path: Path, name: str) -> None:
    folder = save_images(tmp_path, name)
    splits = load_images(folder / name)
    assert (splits["training"], splits["validation"]) == ([], [])
    assert names(splits["test"], folder) == [name]
    assert study_root(splits["test"], folder / name) == str(folder)


def test_equal_names_in_different_folders_are_different_subjects(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "p", "a/001.png", "b/001.png", "c/001.png")
    content = {
        "training": [{"image": "a/001.png"}],
        "validation": [{"image": "b/001.png"}],
        "test": [{"image": "c/001.png"}],
    }
    (folder / "datalist.json").write_text(json.dumps(content))
    splits = load_images(folder)
    subjects = [item["subject"] for items in splits.values() for item in items]
    assert subjects == ["a/001.png", "b/001.png", "c/001.png"]


def test_a_class_in_a_datalist_says_whether_an_image_is_anomalous(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "p", "a.png", "b.png", "c.png", "d.png")
    content = {
        "training": [{"image": "a.png", "label": 0}],
        "validation": [{"image": "b.png", "label": 0}],
        "test": [{"image": "c.png", "label": 0}, {"image": "d.png", "label": 1}],
    }
    (folder / "datalist.json").write_text(json.dumps(content))
    splits = load_images(folder)
    assert [item["anomalous"] for item in splits["test"]] == [False, True]
    assert not any("label" in item for items in splits.values() for item in items)
    content["training"] = [{"image": "a.png", "label": 1}]
    (folder / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(DatalistError, match="marked anomalous"):
        load_images(folder)


def test_a_tree_without_masks_trains_and_is_judged(mvtec: Path) -> None:
    for category in ("bottle", "screw"):
        shutil.rmtree(mvtec / category / "ground_truth")
    splits = load_images(mvtec)
    assert {name: len(items) for name, items in splits.items()} == {
        "training": 18, "validation": 2, "test": 10,
    }  # fmt: skip
    assert sum(item["anomalous"] for item in splits["test"]) == 6


def test_a_tree_without_train_good_is_inferred_as_its_error_says(mvtec: Path) -> None:
    shutil.rmtree(mvtec / "screw" / "train")
    with pytest.raises(DatalistError, match=f"give {mvtec}/screw/test"):
        load_images(mvtec / "screw")
    assert len(load_images(mvtec / "screw" / "test")["test"]) == 5


def numbered(folder: Path, **counts: int) -> Path:
    return save_images(
        folder,
        *(f"{kind.replace('__', '/')}/{n}.png" for kind, c in counts.items() for n in range(c)),
    )


def test_a_fifth_of_the_normal_images_is_held_back_where_the_test_has_none(
    tmp_path: Path,
) -> None:
    folder = numbered(tmp_path / "p", good=20, dent=3, rust=2)
    splits = load_images(folder)
    trained = names(splits["training"] + splits["validation"], folder)
    assert (len(splits["training"]), len(splits["validation"])) == (14, 2)
    assert all(name.startswith("good/") for name in trained)
    assert load_images(folder) == splits
    other = load_images(folder, seed=1)
    assert names(other["training"], folder) != names(splits["training"], folder)
    tree = numbered(tmp_path / "t", train__good=20, test__dent=3)
    splits = load_images(tree)
    assert [len(splits[s]) for s in ("training", "validation", "test")] == [14, 2, 4 + 3]
    everything = [name for items in splits.values() for name in names(items, tree)]
    assert len(set(everything)) == len(everything) == 23


def test_a_folder_that_says_train_and_test_is_not_trained_on_its_test(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "p", train=9, test=4)
    splits = load_images(folder)
    assert [len(splits[s]) for s in ("training", "validation", "test")] == [8, 1, 4]
    assert all(name.startswith("test/") for name in names(splits["test"], folder))
    # A part without the other is a name as any.
    only = numbered(tmp_path / "q", test=4, more=2)
    assert len(load_images(only)["test"]) == 6


def with_hashes(path: Path, **hashes: list[str]) -> Path:
    network = build_multiad("efficientnet_lite0_decoder", teacher_weights="random")
    save_model(network, path, card={"domain": "industrial", "image_hashes": hashes})
    return path


def test_of_a_plain_folder_a_model_is_tested_on_what_it_has_not_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, number in [("good", n) for n in range(6)] + [("bad", n) for n in range(2)]:
        image = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        save_image(tmp_path / "p" / kind / f"{number}.png", image)
    folder = tmp_path / "p"
    seen = [image_hash({"image": folder / f"good/{number}.png"}) for number in range(4)]
    model = with_hashes(tmp_path / "model.pt", training=seen[:3], held_out=seen[3:])
    test = names(load_images(folder, model=model)["test"], folder)
    assert test == ["bad/0.png", "bad/1.png", "good/4.png", "good/5.png"]
    # A model that does not tell is tested on the share that its training held back.
    older = with_hashes(tmp_path / "older.pt")
    test = load_images(folder, model=older)["test"]
    assert len(test) == 2 + 1
    trained = load_images(folder)
    assert not {i["image"] for i in test} & {
        i["image"] for i in trained["training"] + trained["validation"]
    }
    with pytest.raises(DatalistError, match=r"\b4 images"):
        load_images(
            with_links(tmp_path / "flat", [folder / f"good/{n}.png" for n in range(4)]), model=model
        )


def with_links(folder: Path, files: list[Path]) -> Path:
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder
