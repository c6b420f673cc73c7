"""Every recipe of images, from files as published to slices that can be trained on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multiad_med.data import SliceCache, open_slices
from multiad_med.preparation import load_studies
from multiad_med.testing.layouts import (
    make_bmad,
    make_btad,
    make_loco,
    make_mvtec,
    make_real_iad,
    make_visa,
    picture,
    save_image,
)
from tests.preparation.runs import run, states

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("make", [make_mvtec, make_loco, make_btad, make_visa])
def test_industrial_trees(tmp_path: Path, rng: np.random.Generator, make: Any) -> None:
    make(tmp_path / "source", rng=rng)
    summary, target = run("mvtec_ad", tmp_path)
    assert summary.failures == []
    assert set(states(summary, "training")) == set(states(summary, "validation")) == {"normal"}
    assert set(states(summary, "test")) == {"normal", "abnormal"}
    abnormal = SliceCache(target, split="test", states=["abnormal"], labels=True)
    assert all(slice_["label"].any() for slice_ in abnormal)
    assert abnormal[0]["image"].shape == (3, 32, 32)


def test_one_industrial_category_or_several(tmp_path: Path, rng: np.random.Generator) -> None:
    make_mvtec(tmp_path / "source", rng=rng)
    _, target = run("mvtec_ad", tmp_path)
    assert {r["category"] for r in SliceCache(target).index} == {"bottle", "screw"}
    only = SliceCache(target, categories=["screw"])
    assert {r["category"] for r in only.index} == {"screw"}
    (tmp_path / "one").mkdir()
    (tmp_path / "one/source").symlink_to(tmp_path / "source")
    _, single = run("mvtec_ad", tmp_path / "one", categories=["screw"])
    assert {r["category"] for r in SliceCache(single).index} == {"screw"}


def test_views_of_a_sample_of_real_iad_stay_together(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_real_iad(tmp_path / "source", rng=rng)
    summary, target = run("real_iad", tmp_path, validation=0.25)
    assert summary.failures == []
    assert states(summary, "training") == {"normal": 15}
    assert states(summary, "validation") == {"normal": 5}
    assert states(summary, "test") == {"normal": 8, "abnormal": 2}
    assert len(set(SliceCache(target, split="validation").subjects)) == 1
    abnormal = SliceCache(target, split="test", states=["abnormal"], labels=True)
    assert all(slice_["label"].any() for slice_ in abnormal)


@pytest.mark.parametrize("spelling", ["release", "script", "mirror"])
def test_bmad_in_every_spelling(tmp_path: Path, rng: np.random.Generator, spelling: str) -> None:
    make_bmad(tmp_path / "source", rng=rng, spelling=spelling)
    summary, target = run("bmad", tmp_path)
    assert summary.failures == []
    assert {r["category"] for r in SliceCache(target).index} == {"brain", "liver", "resc"}
    assert states(summary, "test")["abnormal"] > 0


def test_bmads_shared_patients_are_refused_or_reported(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    source = tmp_path / "source/Liver_AD/hist_DIY"
    for name in ("train/good/1_3", "valid/good/img/2_4", "test/good/img/2_9"):
        save_image(source / f"{name}.png", picture(16, rng, defect=False)[0])
    summary, target = run("bmad", tmp_path)
    assert re.search(r"\b1 subjects\b.*two splits", summary.warnings[0])
    # What was accepted once can be trained on.
    assert len(load_studies(target)["validation"]) == 1
    with pytest.raises(ValueError, match=r"lits-2 \(validation and test\)"):
        run("bmad", tmp_path, allow_shared_subjects=False)


def test_a_folder_of_images(tmp_path: Path, rng: np.random.Generator) -> None:
    for index in range(6):
        save_image(tmp_path / f"source/good/{index}.png", picture(24, rng, defect=False)[0])
    for index in range(2):
        save_image(tmp_path / f"source/bad/{index}.png", picture(24, rng, defect=True)[0])
    summary, _ = run("images", tmp_path)
    assert summary.failures == []
    assert set(states(summary, "training")) == {"normal"}
    assert states(summary, "test") == {"abnormal": 2, "normal": 1}  # without, nothing to evaluate


def test_images_are_stretched_as_the_bundle_does_or_keep_their_aspect(tmp_path: Path) -> None:
    wide = np.full((10, 40), 200, np.uint8)
    for index in range(3):
        (tmp_path / "source").mkdir(exist_ok=True)
        Image.fromarray(wide).save(tmp_path / f"source/{index}.png")
    # An image of one grey value shows nothing, but is an image.
    _, target = run("images", tmp_path, colour=False)
    assert bool((SliceCache(target)[0]["image"] > 0).all())
    settings = {"colour": False, "keep_aspect": False}
    open_slices(target, split="training", data=[], transform=dict, size=32, settings=settings)
    _, target = run("images", tmp_path, colour=False, keep_aspect=True)
    image = SliceCache(target)[0]["image"][0]
    assert int((image > 0).any(dim=1).sum()) == 8  # 32 * 10 / 40 rows
    assert int((image > 0).any(dim=0).sum()) == 32
