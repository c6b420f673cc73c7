"""What the configs of a bundle write several times says the same everywhere.

Tools open one of them at a time, so that they cannot share a file. ``test_shared.py`` compares bundles.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from monai.bundle import ConfigParser

from multiad_med.resources import bundle_path, read_config
from multiad_med.testing.cohorts import bundle_names

FILES = ("train.json", "inference.json", "evaluate.json")

SHAPES = "aspects"
"""Of the images that trained, kept on the card to tell other ones; it changes no map."""

CHOSEN = {"size", SHAPES}
"""What a training on images chooses by them."""

pytestmark = pytest.mark.parametrize("bundle", bundle_names())


def is_images(bundle: str) -> bool:
    reader: str = read_config(bundle, "inference.json")["reader"]["_target_"]
    return reader.endswith("LoadImagesd")


def all_steps(config: dict[str, Any], transforms: list[Any]) -> list[dict[str, Any]]:
    """Transforms in order, those in the place of references too."""
    steps: list[dict[str, Any]] = []
    for step in transforms:
        item = config[step.removeprefix("@")] if isinstance(step, str) else step
        steps += all_steps(config, item["transforms"]) if "transforms" in item else [item]
    return steps


def image_steps(config: dict[str, Any], transforms: list[Any]) -> list[dict[str, Any]]:
    """The steps as they act on all but the lesion mask.

    Training cuts images into tiles, which inference leaves to its inferer.
    """
    steps = []
    for step in all_steps(config, transforms):
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


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """What decides what the network sees, as training and the model's card name it."""
    settings: dict[str, Any] = config["prepared"]["defaults"]
    return settings


def test_settings_and_network_agree_between_training_and_inference(bundle: str) -> None:
    train, inference = (read_config(bundle, name) for name in FILES[:2])
    of_model = {*prepared(inference), "preset"}
    settings = {k for k, v in inference.items() if not isinstance(v, dict)} & set(train)
    for key in settings - {"imports", "initialize", "run", "dataset_dir"} - of_model:
        assert train[key] == inference[key], key
    for key in of_model - {SHAPES}:
        assert inference[key] is None, key
    drawn = {"seed", "validation"}  # of the division, which inference does not use
    assert inference["datalist"] == {k: v for k, v in train["datalist"].items() if k not in drawn}


def test_the_card_has_what_inference_asks_it_for(bundle: str) -> None:
    train, inference = (read_config(bundle, name) for name in FILES[:2])
    names = set(prepared(inference))
    chosen = CHOSEN if is_images(bundle) else set()
    settings = {name: train[name] for name in names - chosen}
    assert settings.items() <= prepared(inference).items()
    assert inference["prepared"]["given"] == {name: f"@{name}" for name in names - {SHAPES}}
    told = {name: f"$@prepared['{name}']" for name in chosen}
    assert train["card"]["preparation"] == {name: f"@{name}" for name in settings} | told
    assert train["domain"] == inference["domain"] == bundle.removeprefix("multiad_")


def test_every_setting_that_decides_a_map_is_recorded_with_it(bundle: str) -> None:
    """Else a study would count as finished that was made with another."""
    inference = read_config(bundle, "inference.json")
    steps = all_steps(inference, inference["preprocessing"]["transforms"])
    used = json.dumps([steps, inference["inferer"]])
    settings = [k for k, v in inference.items() if not isinstance(v, dict) and f"@{k}" in used]
    deciding = set(settings) - {"sw_batch_size"}
    recorded = inference["results"]["settings"]
    assert deciding | set(prepared(inference)) - {SHAPES} == set(recorded)
    for name, value in recorded.items():
        assert value == (f"@{name}" if name in deciding else f"$@prepared['{name}']")


def test_images_are_prepared_alike_in_training_inference_and_evaluation(bundle: str) -> None:
    train, *others = (read_config(bundle, name) for name in FILES)
    ours = image_steps(train, train["train"]["preprocessing"]["transforms"])
    for other in others:
        assert image_steps(other, other["preprocessing"]["transforms"]) == ours


def test_evaluation_repeats_nothing_of_inference(bundle: str) -> None:
    folder = bundle_path(bundle) / "configs"
    inference = ConfigParser(json.loads((folder / "inference.json").read_text()))
    evaluate = json.loads((folder / "evaluate.json").read_text())
    for key, value in evaluate.items():
        if key.startswith("+"):
            there = inference[key.removeprefix("+")]
            assert not [item for item in value if item in there], key
        else:
            assert key not in inference or inference[key] != value, key
    assert evaluate["overwrite"] is True  # metrics are of all studies


def test_overlays_name_what_they_change_never_a_position(bundle: str) -> None:
    paths = sorted((bundle_path(bundle) / "configs").glob("*.json"))
    assert {*FILES} <= {path.name for path in paths}
    for path in paths:
        for key in json.loads(path.read_text()):
            assert not re.search(r"(#|::)\d+", key), (path.name, key)
