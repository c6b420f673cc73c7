"""Hashes by which a model recognises images: of files, series and prepared slices alike."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multiad_med.card import ModelCard
from multiad_med.data import SliceCache, SliceDataset, describe_training, image_hashes
from multiad_med.data.image_hashes import image_hash
from multiad_med.preparation import load_recipe, prepare
from multiad_med.testing.layouts import make_mvtec
from multiad_med.testing.networks import tiny_multiad
from multiad_med.training import ResumableTraining


def test_a_files_hash_is_the_start_of_its_sha256_whatever_its_name_and_mask(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"pixels")
    expected = hashlib.sha256(b"pixels").hexdigest()[:16]
    assert image_hash({"image": str(tmp_path / "a.png"), "label": "none.png"}) == expected
    assert image_hash({"image": str(tmp_path / "b.png")}) == expected


def test_a_series_has_one_hash_as_a_folder_and_as_files_in_any_order(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("1", "2", "3")]
    for file in files:
        file.write_bytes(file.name.encode())
    digests = sorted(hashlib.sha256(name).hexdigest() for name in (b"1", b"2", b"3"))
    expected = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    (tmp_path / ".hidden").touch()
    assert image_hash({"image": str(tmp_path)}) == expected
    assert image_hash({"image": [str(file) for file in reversed(files)]}) == expected


def described(dataset: Any) -> dict[str, Any]:
    return describe_training(
        domain="industrial", preparation={}, settings={}, training=dataset, held_out=dataset
    )


def test_prepared_slices_have_the_hashes_of_their_files(tmp_path: Path) -> None:
    make_mvtec(tmp_path / "in", rng=np.random.default_rng(0), size=16, train=4, categories=["nut"])
    recipe = load_recipe("mvtec_ad", {"size": 16})
    prepare(recipe, tmp_path / "in", tmp_path / "slices", workers=0, progress=False)
    cache = SliceCache(tmp_path / "slices")
    items = recipe.splits(tmp_path / "in")["training"]
    assert len(items) > 1
    assert image_hashes.image_hashes(cache) == sorted(image_hash(item) for item in items)


def test_a_large_set_keeps_so_many_hashes_and_the_same_ones_each_time(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(image_hashes, "KEPT", 5)
    items = []
    for number in range(12):
        (tmp_path / str(number)).write_text(str(number))
        items.append({"image": str(tmp_path / str(number)), "subject": str(number)})
    dataset = SliceDataset(items, lambda _: {"image": torch.ones(1, 4, 4, 1)}, progress=False)
    found = described(dataset)["image_hashes"]["training"]
    assert len(found) == 5
    assert found == described(dataset)["image_hashes"]["training"]
    assert set(found) <= {image_hash(item) for item in items}


def test_hashes_are_on_the_card_and_no_setting_of_a_resumed_training(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    items = [{"image": str(tmp_path / "a"), "subject": "a"}]
    dataset = SliceDataset(items, lambda _: {"image": torch.ones(1, 4, 4, 1)}, progress=False)
    about = described(dataset)
    card = ModelCard(**about)
    again = ModelCard.from_tensor(card.as_tensor())
    assert again.image_hashes == {"training": [image_hash(items[0])]} | {
        "held_out": [image_hash(items[0])]
    }
    training = ResumableTraining(tmp_path / "checkpoint.pt", {}, settings=about)
    network = tiny_multiad()
    engine: Any = type("Engine", (), {"network": network})
    assert not any("image_hashes" in name for name in training._settings(engine))


def test_a_card_without_hashes_is_read(tmp_path: Path) -> None:
    content = ModelCard().as_json()
    del content["image_hashes"], content["calibration"]
    card = ModelCard.from_json(json.loads(json.dumps(content)))
    assert (card.image_hashes, card.calibration) == ({}, {})
