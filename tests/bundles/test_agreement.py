"""What is written several times in the bundles says the same everywhere.

Tools open one config of a bundle at a time, so that nothing can be shared by reference. Whatever lies
in ``bundles`` is tested.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from multiad_med.resources import bundles_dir

BUNDLES = sorted(path for path in bundles_dir().iterdir() if (path / "configs").is_dir())
FILES = ("train", "inference", "evaluate")
MIXINS = ("multi_gpu_train.json", "federated.json", "paper.json")
FIRST = next(path for path in BUNDLES if path.name == "multiad_brain_mri")

OWN = {
    *("dataset_dir", "image_glob", "preprocessing", "postprocessing", "inferer", "handlers"),
    *("imports", "datalist", "dataset", "results", "train", "validate", "steps", "fused"),
    *("experts",),
    *("score_fraction", "domain", "card", "prepared"),
}
"""Top-level ids in which bundles may differ: reader, transforms, inferer, writer, and what was chosen
for the domain by measurement. Parts of them are compared below."""

VOLUMES_ONLY = {"image_glob", "label_glob", "min_fraction", "channels"}
"""Settings of volumes' readers and transforms, which images need not have."""

SHAPES = "aspects"
"""Of the images that trained, kept on the card to tell other ones; it changes no map."""

CHOSEN = {"size", SHAPES}
"""What a training on images chooses by them."""


def is_pictures(root: Path) -> bool:
    return "Images" in json.dumps(load(root, "inference")["preprocessing"])


def load(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "configs" / f"{name}.json").read_text())
    return content


def image_steps(transforms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps as they act on all but the lesion mask.

    Training cuts images into tiles, which inference leaves to its inferer.
    """
    steps = []
    for step in transforms:
        if step["_target_"].endswith("Tilesd"):
            continue
        keys = step["keys"] if isinstance(step["keys"], list) else [step["keys"]]
        keys = [k for k in keys if k != "label"]
        if keys:
            ignored = {"allow_missing_keys": None, "label_key": None, SHAPES: None}
            # Training's own setting is what inference has from the card.
            text = re.sub(r"\"\$(@prepared\['\w+'\])\"", r'"\1"', json.dumps(step))
            step = json.loads(re.sub(r"@prepared\['(\w+)'\]", r"@\1", text))
            steps.append({**step, "keys": keys, **ignored})
    return steps


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def root(request: pytest.FixtureRequest) -> Path:
    return request.param


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """What decides what the network sees, as training and the model's card name it."""
    settings: dict[str, Any] = config["prepared"]["defaults"]
    return settings


def test_settings_and_network_agree_between_the_files(root: Path) -> None:
    train, inference, evaluate = (load(root, name) for name in FILES)
    of_model = {*prepared(inference), "preset"}
    settings = {k for k, v in inference.items() if not isinstance(v, dict)} & set(train)
    for key in settings - {"imports", "initialize", "run", "dataset_dir"} - of_model:
        assert train[key] == inference[key], key
    for key in of_model - {SHAPES}:
        assert inference[key] is None, key
    drawn = {"seed", "validation"}  # of the division, which inference does not use
    assert inference["datalist"] == {k: v for k, v in train["datalist"].items() if k not in drawn}
    shared = set(inference) & set(evaluate) - {
        *("imports", "preprocessing", "postprocessing", "handlers", "overwrite", "datalist")
    }
    # An evaluation may leave out what its model has seen.
    found = {k: v for k, v in evaluate["datalist"].items() if k != "model"}
    assert inference["datalist"] == found
    for key in shared:
        assert inference[key] == evaluate[key], key
    assert (inference["overwrite"], evaluate["overwrite"]) == (False, True)


def test_the_card_has_what_inference_asks_it_for(root: Path) -> None:
    train, inference = load(root, "train"), load(root, "inference")
    names = set(prepared(inference))
    chosen = CHOSEN if is_pictures(root) else set()
    settings = {name: train[name] for name in names - chosen}
    assert settings.items() <= prepared(inference).items()
    assert inference["prepared"]["given"] == {name: f"@{name}" for name in names - {SHAPES}}
    told = {name: f"$@prepared['{name}']" for name in chosen}
    assert train["card"]["preparation"] == {name: f"@{name}" for name in settings} | told
    assert train["domain"] == inference["domain"] == root.name.removeprefix("multiad_")


def test_every_setting_that_decides_a_map_is_recorded_with_it(root: Path) -> None:
    """Else a study would count as finished that was made with another."""
    inference = load(root, "inference")
    used = json.dumps([inference["preprocessing"], inference["inferer"]])
    settings = [k for k, v in inference.items() if not isinstance(v, dict) and f"@{k}" in used]
    deciding = set(settings) - {"sw_batch_size"}
    recorded = inference["results"]["settings"]
    assert deciding | set(prepared(inference)) - {SHAPES} == set(recorded)
    for name, value in recorded.items():
        assert value == (f"@{name}" if name in deciding else f"$@prepared['{name}']")


def test_images_are_prepared_alike_in_training_inference_and_evaluation(root: Path) -> None:
    train, inference, evaluate = (load(root, name) for name in FILES)
    ours = image_steps(train["train"]["preprocessing"]["transforms"])
    for other in (inference, evaluate):
        assert image_steps(other["preprocessing"]["transforms"]) == ours


def test_evaluation_repeats_inferences_steps_and_adds_its_own(root: Path) -> None:
    inference, evaluate = load(root, "inference"), load(root, "evaluate")
    common = inference["postprocessing"]["transforms"]
    assert evaluate["postprocessing"]["transforms"][: len(common)] == common
    for handler in inference["handlers"]:
        assert handler in evaluate["handlers"]


def test_bundles_differ_in_reader_transforms_inferer_and_writer_only(root: Path) -> None:
    for name in FILES:
        ours, first = load(root, name), load(FIRST, name)
        assert set(first) - set(ours) <= (VOLUMES_ONLY if is_pictures(root) else set())
        # What a bundle adds are settings of its reader or transforms.
        added = set(ours) - set(first)
        users = ("train", "preprocessing", "datalist", "prepared")
        text = json.dumps([ours[k] for k in users if k in ours])
        assert all(f"@{key}" in text for key in added), added
        for key in set(first) & set(ours) - OWN - (CHOSEN if is_pictures(root) else set()):
            assert ours[key] == first[key], (name, key)
        if name != "train":
            own = ("settings", "source", "files")
            results = (
                {k: v for k, v in c["results"].items() if k not in own} for c in (ours, first)
            )
            assert next(results) == next(results)
            assert ours["dataset"] == first["dataset"]
        if not is_pictures(root):
            kind = {"kind": first["datalist"]["kind"]}
            globs = {"organ_glob": "@organ_glob"} if "organ_glob" in ours else {}
            assert {**ours["datalist"], **kind} == {**first["datalist"], **globs}


def test_training_differs_in_preprocessing_only(root: Path) -> None:
    ours, first = load(root, "train"), load(FIRST, "train")

    def plain(handlers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        own = ("radiological", "group")
        return [{k: v for k, v in handler.items() if k not in own} for handler in handlers]

    for part, slices in (("train", "dataset"), ("validate", "held_out")):
        assert plain(ours[part]["handlers"]) == plain(first[part]["handlers"])
        for key in set(first[part]) - {"preprocessing", slices, "handlers"}:
            assert ours[part][key] == first[part][key], key
        if not is_pictures(root):
            assert ours[part][slices] == first[part][slices]
    assert ours["calibrate"] == first["calibrate"]


def test_what_is_merged_over_the_training_is_the_same_in_all_bundles(root: Path) -> None:
    for name in MIXINS:
        ours, first = (load(folder, name.removesuffix(".json")) for folder in (root, FIRST))
        if is_pictures(root) and "calibrating" in ours:
            # Tiles are parts of an image, in federated calibration as in training.
            handlers = load(root, "train")["train"]["handlers"]
            (group,) = (h["group"] for h in handlers if "group" in h)
            assert ours["calibrating"][0].pop("group") == group
            # Sites do not know each other's images, by which one alone chooses the size.
            assert ours.pop("prepared#images") == []
            # Sums of a Gaussian may be shared, patches of patients may not.
            assert ours.pop("experts") == ["position_gaussian"]
            assert first.pop("experts") == []
        assert ours == first, name


def test_postprocessing_and_handlers_differ_in_writer_and_title_only(root: Path) -> None:
    def plain(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        own = ("writer", "oriented", "title", "config", "upright", "images", "desc")
        return [{k: v for k, v in step.items() if k not in own} for step in steps]

    ours, first = load(root, "inference"), load(FIRST, "inference")
    assert plain(ours["handlers"]) == plain(first["handlers"])
    if not is_pictures(root):
        here, there = (c["postprocessing"]["transforms"] for c in (ours, first))
        assert plain(here) == plain(there)
    ours, first = load(root, "evaluate"), load(FIRST, "evaluate")
    assert plain(ours["handlers"]) == plain(first["handlers"])
