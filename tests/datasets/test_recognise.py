"""Recognition: every built tree is known, faults are told, and the unknown is counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import recognise
from multiad_med.testing import layouts as trees

Touch = Callable[..., Path]

BUILDERS: dict[str, tuple[Callable[..., None], str]] = {
    "brats": (trees.make_brats, "brats2021"),
    "lits": (trees.make_lits, "lits"),
    "btcv": (trees.make_btcv, "btcv"),
    "liver": (trees.make_liver, "liver_ct"),
    "resc": (trees.make_resc, "resc"),
    "pnet": (trees.make_pnet, "resc"),
    "bmad": (trees.make_bmad, "bmad"),
    "mvtec": (trees.make_mvtec, "mvtec_ad"),
    "loco": (trees.make_loco, "mvtec_ad"),
    "btad": (trees.make_btad, "mvtec_ad"),
    "visa": (trees.make_visa, "mvtec_ad"),
    "real_iad": (trees.make_real_iad, "real_iad"),
    "scenes": (trees.make_scenes, "intel_scenes"),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_every_published_tree_is_recognised(
    tmp_path: Path, rng: np.random.Generator, name: str
) -> None:
    builder, recipe = BUILDERS[name]
    builder(tmp_path, rng=rng)
    findings = recognise(tmp_path)
    best = findings[0]
    assert best.recipe == recipe
    assert best.items == sum(best.splits.values()) > 0
    assert 0 < best.subjects <= best.items
    assert not {"volumes", "images"} & {finding.recipe for finding in findings}


@pytest.mark.parametrize(
    ("builder", "recipe"),
    [
        (trees.make_cifar10, "cifar10"),
        (trees.make_cifar100, "cifar100"),
        (trees.make_fashion_mnist, "fashion_mnist"),
    ],
)
def test_arrays_are_recognised(
    tmp_path: Path, rng: np.random.Generator, builder: Callable[..., None], recipe: str
) -> None:
    builder(tmp_path, rng=rng)
    (finding,) = recognise(tmp_path)
    assert (finding.recipe, finding.items) == (recipe, 0)
    assert "arrays of images" in finding.note


def test_counts_are_those_of_the_reader(tmp_path: Path, rng: np.random.Generator) -> None:
    trees.make_bmad(tmp_path, rng=rng, categories=["brain"], train=2, test=1)
    best = recognise(tmp_path)[0]
    assert (best.items, best.subjects) == (12, 6)
    assert best.splits == {"training": 4, "validation": 4, "test": 4}
    for fact in (r"\b4 with .*masks", r"\b4 marked anomalous", r"\bbrain: 12\b"):
        assert re.search(fact, best.note)


def test_both_livers_are_also_each_of_them(tmp_path: Path, rng: np.random.Generator) -> None:
    trees.make_liver(tmp_path, rng=rng, btcv=1, lits=1, shape=(16, 16, 4))
    assert [finding.recipe for finding in recognise(tmp_path)] == ["liver_ct", "lits", "btcv"]


@pytest.mark.parametrize(
    ("name", "recipe"), [("a/b.nii.gz", "volumes"), ("a.png", "images"), ("normal/a.bmp", "images")]
)
def test_unpublished_data_fit_the_generic_recipes(touch: Touch, name: str, recipe: str) -> None:
    (finding,) = recognise(touch(name))
    assert (finding.recipe, finding.items) == (recipe, 1)


def test_faulty_data_set_is_told_with_its_fault(touch: Touch) -> None:
    findings = recognise(touch("a/volume-0.nii", "b/volume-0.nii"))
    assert [(f.recipe, f.items) for f in findings] == [("volumes", 2), ("lits", 0)]
    assert "found twice" in findings[1].note


def test_folder_of_nothing_known_is_counted(touch: Touch) -> None:
    (finding,) = recognise(touch("CT.1.2.840.1", "CT.1.2.840.2", "c.pdf"))
    assert (finding.recipe, finding.items) == (None, 0)
    assert re.search(r"\b2 x no suffix, 1 x \.pdf", finding.note)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    assert "no files" in recognise(tmp_path)[0].note
    with pytest.raises(DatalistError, match="does not exist"):
        recognise(tmp_path / "x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "recipe"),
    [
        ("industrial", "mvtec_ad"),
        ("brain/BraTS-GLI-00001-000", "brats2021"),
        ("brain/brats2013", "volumes"),
        ("oct/duke_dme_subject01", "images"),
        ("oct/kermany_mini", "mvtec_ad"),
    ],
)
def test_real_folders_are_recognised(real_data: Path, folder: str, recipe: str) -> None:
    assert recognise(real_data / folder)[0].recipe == recipe
