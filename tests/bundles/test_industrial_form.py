"""The industrial bundle keeps the model zoo's rules and the brain bundle's form."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from monai.bundle import create_workflow, verify_metadata, verify_net_in_out

from multiad_med.resources import bundle_path
from tests.bundles.test_industrial import CONFIGS, CPU, SIZE, files
from tests.trees import make_mvtec


@pytest.mark.parametrize(
    ("kind", "config"),
    [("train", "train.json"), ("infer", "inference.json"), ("infer", "evaluate.json")],
)
def test_check_properties_is_clean(tmp_path: Path, kind: str, config: str) -> None:
    make_mvtec(tmp_path / "mvtec", rng=np.random.default_rng(0))
    override = {"ckpt_dir": str(tmp_path)} if kind == "train" else {}
    flow = create_workflow(
        config_file=str(CONFIGS / config),
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        workflow_type=kind,
        bundle_root=str(CONFIGS.parent),
        dataset_dir=str(tmp_path / "mvtec"),
        output_dir=str(tmp_path),
        size=SIZE,
        device=CPU,
        **override,
    )
    assert not flow.check_properties()


def test_metadata_keep_the_model_zoos_rules() -> None:
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    schema = Path(__file__).with_name("metadata_schema.json")
    jsonschema.validate(metadata, json.loads(schema.read_text()))
    verify_metadata(
        meta_file=str(CONFIGS / "metadata.json"), filepath=str(schema), create_dir=False
    )
    assert metadata["version"] in metadata["changelog"]
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        device="cpu",
    )


def test_who_knows_the_brain_bundle_knows_this_one() -> None:
    """The same files, and the same ids but for reader and preparation."""
    brain = bundle_path("multiad_brain_mri")
    parts = [p for p in files(brain, "*.*") if not p.startswith("models")]
    assert files(CONFIGS.parent, "*.*") == parts
    assert (CONFIGS.parent / "LICENSE").read_bytes() == (brain / "LICENSE").read_bytes()
    for name in ("train", "inference", "evaluate"):
        ours, theirs = (
            json.loads((folder / f"configs/{name}.json").read_text())
            for folder in (CONFIGS.parent, brain)
        )
        new = {"categories", "colour", "even_light", "tile", "validation_fraction"}
        gone = {"image_glob", "label_glob", "min_fraction", "channels"}
        assert ours.keys() - theirs.keys() <= new
        assert theirs.keys() - ours.keys() <= gone
        for key in ("network_def", "preset", "loss", "optimizer", "evaluator", "score_fraction"):
            assert ours.get(key) == theirs.get(key), key


def test_shared_parts_agree_between_the_files() -> None:
    train, inference, evaluate = (
        json.loads((CONFIGS / f"{name}.json").read_text())
        for name in ("train", "inference", "evaluate")
    )
    for key in ("preset", "size", "tile", "colour", "even_light", "categories"):
        assert train[key] == inference[key] == evaluate[key], key
    different = {"preprocessing", "postprocessing", "handlers"}
    for key in set(inference) & set(evaluate) - different:
        assert inference[key] == evaluate[key], key
    theirs, ours = (
        [step for step in config["transforms"] if "label" not in step["keys"]]
        for config in (train["train"]["preprocessing"], inference["preprocessing"])
    )
    assert theirs == ours
    steps = evaluate["preprocessing"]["transforms"]
    assert [step for step in steps if step["keys"] != "label"] == ours
    common = inference["postprocessing"]["transforms"]
    assert evaluate["postprocessing"]["transforms"][: len(common)] == common
