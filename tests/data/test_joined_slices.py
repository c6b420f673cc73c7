"""Several folders of prepared slices as one data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from multiad_med.data import (
    CacheError,
    JoinedSlices,
    SliceCache,
    describe_training,
    open_slices,
    prepared_size,
    slice_caches,
)
from multiad_med.data.image_hashes import hashes_by_name
from multiad_med.testing.slice_caches import SIZE, make_cache


@pytest.fixture
def organs(tmp_path: Path) -> Path:
    """Three folders of prepared slices; subjects have the same names in each."""
    for name, training in (("brain", 4), ("liver", 2), ("retina", 3)):
        make_cache(tmp_path / "organs" / name, categories=("organ",), training=training)
    return tmp_path / "organs"


def opened(source: Path, split: str = "training", **options: Any) -> JoinedSlices:
    slices = open_slices(source, split=split, data=[], transform=dict, **options)
    assert isinstance(slices, JoinedSlices)
    return slices


def about(cache: Path, **changes: Any) -> None:
    """Change what a cache tells of itself."""
    content = json.loads((cache / "cache.json").read_text())
    (cache / "cache.json").write_text(json.dumps({**content, **changes}))


def test_slices_follow_folder_by_folder_under_names_of_their_own(organs: Path) -> None:
    slices = opened(organs)
    assert len(slices) == 4 + 2 + 3
    brain, liver = (SliceCache(organs / name) for name in ("brain", "liver"))
    for index, cache, number, name in ((3, brain, 3, "brain"), (4, liver, 0, "liver")):
        theirs, ours = cache[number], slices[index]
        assert torch.equal(ours["image"], theirs["image"])
        assert ours["subject"] == f"{name}/{theirs['subject']}"
        assert ours["study"] == f"{name}/{theirs['study']}"
    assert slices.subjects == [slices[i]["subject"] for i in range(9)]
    assert len(set(slices.subjects)) == 9
    assert [row["category"] for row in slices.index] == ["brain"] * 4 + ["liver"] * 2 + [
        "retina"
    ] * 3
    with pytest.raises(IndexError):
        slices[9]


def test_each_folder_keeps_its_own_split(organs: Path) -> None:
    training, held_out = (
        set(opened(organs, split).subjects) for split in ("training", "validation")
    )
    assert not training & held_out
    assert len(held_out) == 3 * 2


def test_folders_are_chosen_by_name_and_unknown_ones_are_told(organs: Path) -> None:
    assert list(opened(organs, categories=["liver", "brain"]).caches) == ["brain", "liver"]
    with pytest.raises(CacheError, match=r"no prepared slices of \['spleen'\]; .*'retina'"):
        opened(organs, categories=["spleen"])


def test_categories_of_a_folder_that_has_several_stay(tmp_path: Path) -> None:
    make_cache(tmp_path / "in/mvtec", categories=("nut", "screw"), training=2)
    make_cache(tmp_path / "in/tile", categories=("tile",), training=2)
    rows = opened(tmp_path / "in").index
    assert {row["category"] for row in rows} == {"mvtec/nut", "mvtec/screw", "tile"}


def test_grey_slices_become_three_equal_channels_beside_colour(organs: Path) -> None:
    colour = SliceCache(organs / "liver", channels=[0, 0, 0])
    slices = JoinedSlices({"brain": SliceCache(organs / "brain"), "liver": colour})
    first, last = slices[0]["image"], slices[5]["image"]
    assert first.shape == last.shape == (3, SIZE, SIZE)
    assert torch.equal(first[0], first[2])
    with pytest.raises(CacheError, match=r"channels cannot be joined: \{'brain': 1, 'liver': 4\}"):
        JoinedSlices(
            {
                "brain": SliceCache(organs / "brain"),
                "liver": SliceCache(organs / "liver", channels=[0, 0, 0, 0]),
            }
        )


def test_what_does_not_belong_together_is_refused(organs: Path) -> None:
    with pytest.raises(CacheError, match="wanted is 64"):
        opened(organs, size=64)
    about(organs / "retina", settings={"tile": 32})
    with pytest.raises(CacheError, match=r"\['retina'\] hold tiles"):
        opened(organs)
    about(organs / "retina", size=[16, 16], settings={})
    with pytest.raises(CacheError, match=r"different sizes.*'retina': \[16, 16\]"):
        opened(organs)
    with pytest.raises(CacheError, match=r"different sizes.*Prepare all with one size"):
        prepared_size(organs)


def test_only_a_folder_of_several_prepared_ones_is_joined(organs: Path, tmp_path: Path) -> None:
    assert list(slice_caches(organs)) == ["brain", "liver", "retina"]
    assert prepared_size(organs) == prepared_size(organs / "brain") == [SIZE, SIZE]
    assert slice_caches(organs / "brain") == {}
    assert slice_caches(tmp_path / "nowhere") == {}
    assert prepared_size(tmp_path) is None
    (organs / "unfinished").mkdir()
    with pytest.raises(CacheError, match=r"unfinished holds none.*Let its preparation finish"):
        slice_caches(organs)
    for name in ("liver", "retina"):
        shutil.rmtree(organs / name)
    assert slice_caches(organs) == {}  # volumes, beside one folder of slices made from them


def test_the_card_tells_how_each_folder_was_prepared(organs: Path) -> None:
    about(organs / "liver", recipe="lits", settings={"windows": [[-200, 250]]})
    slices = opened(organs)
    card = describe_training(
        domain="generalist",
        preparation={"size": SIZE, "colour": True},
        settings={"seed": 0},
        training=slices,
        held_out=opened(organs, "validation"),
    )
    assert card["preparation"] == {
        "size": SIZE,
        "caches": {"brain": {}, "liver": {"windows": [[-200, 250]]}, "retina": {}},
    }
    assert card["training"]["recipes"] == {"brain": "images", "liver": "lits", "retina": "images"}
    told = card["training"]["training_data"]
    assert (told["studies"], told["categories"]) == (9, ["brain", "liver", "retina"])
    assert set(hashes_by_name(slices)) == {row["study"] for row in slices.index}
