"""Every bundle as the model zoo's CI and MONAI's verbs meet it (model-zoo, ci/verify_bundle.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from monai.bundle import (
    ConfigParser,
    ReferenceResolver,
    ckpt_export,
    create_workflow,
    download_large_files,
    verify_metadata,
    verify_net_in_out,
)
from packaging.version import Version

from multiad_med.resources import bundle_path, config_files
from multiad_med.testing.cohorts import COHORTS, FAST, bundle_names, write_fake_model

SCHEMA = Path(__file__).with_name("metadata_schema.json")
CONFIGS = [("train", "train"), ("infer", "inference"), ("infer", "evaluate")]
FILES = (
    "LICENSE",
    "large_files.yml",
    "docs/README.md",
    "docs/data_license.txt",
    "configs/metadata.json",
    "configs/logging.conf",
    "configs/train.json",
    "configs/inference.json",
    "configs/evaluate.json",
    "configs/inference_trt.json",
    "configs/multi_gpu_train.json",
    "configs/federated.json",
    "configs/paper.json",
)
MIXINS = ("inference_trt", "inference_deploy")
# What tools ask for by name, so that no other item of the config needs to refer to it.
ENTRIES = {
    "imports",
    "initialize",
    "run",
    "training",
    "inference",
    "evaluating",
    "train",
    "validate",
}

pytestmark = pytest.mark.parametrize("name", bundle_names())


def config_paths(name: str, file: str) -> list[str]:
    """A config, after what it is read over."""
    folder = bundle_path(name) / "configs"
    return [str(folder / path) for path in config_files(f"{file}.json")]


def config(name: str, *files: str) -> ConfigParser:
    """The merged config, not yet parsed."""
    parser = ConfigParser()
    paths = [path for file in files for path in config_paths(name, file)]
    parser.read_config(paths)
    return parser


def meta_file(name: str) -> str:
    return str(bundle_path(name) / "configs" / "metadata.json")


def config_file(name: str) -> str:
    return str(bundle_path(name) / "configs" / "inference.json")


def test_directory(name: str) -> None:
    missing = [file for file in FILES if not (bundle_path(name) / file).is_file()]
    assert not missing
    assert not (bundle_path(name) / "scripts").exists()


def test_large_files_are_what_monai_can_download(name: str) -> None:
    download_large_files(bundle_path=str(bundle_path(name)))


def test_version_is_the_changelogs_latest(name: str) -> None:
    metadata = json.loads(Path(meta_file(name)).read_text())
    assert metadata["version"] == str(max(map(Version, metadata["changelog"])))


def test_metadata_follow_the_schema(name: str) -> None:
    metadata = json.loads(Path(meta_file(name)).read_text())
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    verify_metadata(meta_file=meta_file(name), filepath=str(SCHEMA), create_dir=False)


def test_network_takes_and_gives_what_the_metadata_say(name: str) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=meta_file(name),
        config_file=config_file(name),
        device="cpu",
        bundle_root=str(bundle_path(name)),
    )


def test_torchscript_gives_the_same_map(name: str, tmp_path: Path) -> None:
    model = write_fake_model(name, tmp_path / "model.pt")
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(model),
        meta_file=meta_file(name),
        config_file=config_file(name),
        bundle_root=str(bundle_path(name)),
    )
    network = config(name, "inference").get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(model, weights_only=True))
    x = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        expected = network(x)
        assert expected.std() > 1e-3
        exported = torch.jit.load(tmp_path / "model.ts").eval()(x)
    torch.testing.assert_close(exported, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "file"), CONFIGS)
def test_check_properties_is_clean(name: str, kind: str, file: str, tmp_path: Path) -> None:
    flow = create_workflow(
        config_file=config_paths(name, file),
        workflow_type=kind,
        bundle_root=str(bundle_path(name)),
        dataset_dir=str(COHORTS[name](tmp_path)),
        output_dir=str(tmp_path / "out"),
        **FAST,
    )
    assert flow.check_properties() == []


@pytest.mark.parametrize(("kind", "file"), CONFIGS)
def test_every_key_can_be_overridden_and_something_reads_it(
    name: str, kind: str, file: str
) -> None:
    parser = config(name, file)
    read: set[str] = set()

    def collect(item: Any) -> None:
        if isinstance(item, dict | list):
            for part in item.values() if isinstance(item, dict) else item:
                collect(part)
        elif isinstance(item, str):
            read.update(i.split("::")[0] for i in ReferenceResolver.match_refs_pattern(item))
            read.update({item[1:]} if item.startswith("%") else set())

    for key, value in parser.get().items():
        if key != "_meta_":
            collect(value)
    keys = set(parser.get()) - {"_meta_"}
    assert read <= keys
    assert keys - read <= ENTRIES
    for key in keys - {"imports"}:
        parser.update({key: "overridden"})
        parser.parse(reset=True)
        assert parser.get_parsed_content(key) == "overridden"


@pytest.mark.parametrize("mixin", MIXINS)
def test_mix_ins_change_what_is_there_or_add_what_they_read(name: str, mixin: str) -> None:
    path = bundle_path(name) / "configs" / f"{mixin}.json"
    if not path.is_file():
        pytest.skip(f"{name} has no {mixin}.json")
    text = path.read_text()
    for key in json.loads(text):
        key = key.removeprefix("+")
        assert key in config(name, "inference") or f"@{key}" in text, key


def test_tensorrt_mix_in_gives_the_network_to_trt_compile(name: str, tmp_path: Path) -> None:
    """Without TensorRT, MONAI's ``trt_compile`` says so and returns the network as it is."""
    parser = config(name, "inference", "inference_trt")
    parser.update({"ckpt_path": str(tmp_path / "model.pt"), "sw_batch_size": 4})
    assert parser.get("network").startswith("$trt_compile(@network_def")
    assert parser.get_parsed_content("trt_args") == {
        "precision": "fp32",
        "dynamic_batchsize": [1, 4, 4],
    }
    assert parser.get_parsed_content("network") is parser.get_parsed_content("network_def")
    assert parser.get_parsed_content("amp") is False
