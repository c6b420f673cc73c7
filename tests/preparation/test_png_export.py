"""Exported images are the prepared slices, in trees that other readers know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiad_med.data import CacheError, SliceCache
from multiad_med.datasets import find_bmad, find_mvtec
from multiad_med.preparation import ExportLayout, export_png, load_recipe, prepare
from multiad_med.testing.layouts import make_brats, make_mvtec
from multiad_med.transforms import radiological_view


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brain")
    make_brats(folder / "in", rng=np.random.default_rng(0), studies=3, sequences=["flair"])
    recipe = load_recipe("brats2021", {"size": 32, "margin": 2})
    prepare(recipe, folder / "in", folder / "out", workers=0, progress=False)
    return folder / "out"


def test_mvtec_tree_is_read_back_as_mvtec(brain: Path, tmp_path: Path) -> None:
    count = export_png(brain, tmp_path / "tree", progress=False)
    images = [p for p in (tmp_path / "tree").rglob("*.png") if "ground_truth" not in p.parts]
    assert len(images) == count
    # MVTec has no validation; those slices are beside the tree's own parts.
    items = find_mvtec(tmp_path / "tree")
    by_split = {s: [i for i in items if i["split"] == s] for s in ("training", "test")}
    assert len(by_split["training"]) == len(SliceCache(brain))
    test = SliceCache(brain, split="test", states=["abnormal"], labels=True)
    abnormal = [i for i in by_split["test"] if i["anomalous"]]
    assert len(abnormal) == len(test)
    for item, slice_ in zip(abnormal, test, strict=True):
        seen = radiological_view(slice_["image"].numpy())[0]
        stored = np.asarray(Image.open(item["image"])) / 255
        np.testing.assert_allclose(stored, seen, atol=0.503 / 255)
        mask = np.asarray(Image.open(item["label"]))
        label = radiological_view(slice_["label"].numpy())[0]
        np.testing.assert_array_equal(mask, label * 255)


def test_bmad_tree_is_read_back_as_bmad(brain: Path, tmp_path: Path) -> None:
    export_png(brain, tmp_path / "Brain_AD", layout=ExportLayout.BMAD, progress=False)
    items = find_bmad(tmp_path)
    count = {s: sum(i["split"] == s for i in items) for s in ("training", "validation", "test")}
    sure = ["normal", "abnormal"]
    assert count == {
        "training": len(SliceCache(brain)),
        "validation": len(SliceCache(brain, split="validation", states=sure)),
        "test": len(SliceCache(brain, split="test", states=sure)),
    }


def test_sixteen_bits_keep_every_grey_value(brain: Path, tmp_path: Path) -> None:
    export_png(brain, tmp_path / "tree", bits=16, progress=False)
    first = SliceCache(brain)[0]
    path = sorted((tmp_path / "tree/train/good").iterdir())[0]
    values = np.asarray(Image.open(path)).astype(float) / 65535
    seen = radiological_view(first["image"].numpy())[0]
    np.testing.assert_allclose(values, seen, atol=1e-6)


def test_colour_images_keep_their_tree(tmp_path: Path) -> None:
    make_mvtec(tmp_path / "in", rng=np.random.default_rng(0), size=32)
    recipe = load_recipe("mvtec_ad", {"size": 32})
    prepare(recipe, tmp_path / "in", tmp_path / "out", workers=0, progress=False)
    export_png(tmp_path / "out", tmp_path / "tree", progress=False)
    kinds = {(i["category"], i["kind"]) for i in find_mvtec(tmp_path / "tree")}
    assert kinds == {(i["category"], i["kind"]) for i in find_mvtec(tmp_path / "in")}
    source = np.asarray(Image.open(find_mvtec(tmp_path / "in", categories=["screw"])[-1]["image"]))
    exported = find_mvtec(tmp_path / "tree", categories=["screw"])[-1]["image"]
    np.testing.assert_array_equal(np.asarray(Image.open(exported)), source)
    with pytest.raises(CacheError, match="bits=16 does not fit"):
        export_png(tmp_path / "out", tmp_path / "x", bits=16, progress=False)
    with pytest.raises(CacheError, match="not an empty folder"):
        export_png(tmp_path / "out", tmp_path / "tree", progress=False)
