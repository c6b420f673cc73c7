"""A typo on the command line is an error that names the key that was meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import monai.bundle.__main__ as monai_bundle
import pytest

from multiad_med.overrides import check_overrides
from multiad_med.resources import bundle_path
from tests.bundles.cohorts import bundle_names

CONFIGS = ("train", "inference", "evaluate")
TRAIN = str(bundle_path("multiad_brain_mri") / "configs" / "train.json")


def check(*options: str, config: str = TRAIN) -> None:
    check_overrides([monai_bundle.__file__, "run", "training", "--config_file", config, *options])


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--max_epoch=3", "--max_epochs"),
        ("--batch-sise=3", "--batch_size"),
        ("--train#dataloder#num_workers=3", "--train#dataloader"),
        ("--train::dataloder::num_workers=3", "--train#dataloader"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest(option: str, meant: str) -> None:
    with pytest.raises(SystemExit, match=f"Did you mean {meant}\\?"):
        check(option)


def test_a_key_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(SystemExit, match="there is no no_such_key in") as error:
        check("--no_such_key", "1")
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        [],
        [
            "--max_epochs",
            "3",
            "--dataset_dir=/data",
            "--logging_file",
            "x",
            "--init_id",
            "initialize",
        ],
        ["--train#handlers#0#_disabled_", "True"],
        ["--train::trainer::epoch_length", "5"],  # of the class, not in the config
        ["--_meta_#version", "1"],
        ["--tracking", "mlflow", "--tracking_uri", "sqlite:///x", "--experiment_name", "x"],
    ],
)
def test_known_keys_pass(options: list[str]) -> None:
    check(*options)


def test_tracking_keys_without_tracking_are_unknown() -> None:
    with pytest.raises(SystemExit, match="experiment_name"):
        check("--experiment_name", "x")


@pytest.mark.parametrize("form", ["['{0}','{1}']", "{0},{1}"])
def test_keys_of_a_mix_in_are_known(tmp_path: Path, form: str) -> None:
    mixin = tmp_path / "mix.json"
    mixin.write_text(json.dumps({"ranks": 2, "train#sampler#shuffle": False}))
    check("--ranks", "3", config=form.format(TRAIN, mixin))
    with pytest.raises(SystemExit):
        check("--ranks", "3")


def test_keys_of_an_args_file_are_checked(tmp_path: Path) -> None:
    arguments = tmp_path / "args.json"
    arguments.write_text(json.dumps({"config_file": TRAIN, "max_epoch": 3}))
    with pytest.raises(SystemExit, match="max_epochs"):
        check_overrides([monai_bundle.__file__, "run", "--args_file", str(arguments)])


def test_other_programs_are_left_alone() -> None:
    check_overrides(["pytest", "run", "--config_file", TRAIN, "--no_such_key", "1"])
    check_overrides([monai_bundle.__file__, "ckpt_export", "--no_such_key", "1"])


@pytest.mark.parametrize("name", bundle_names())
@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_checks_first_of_all(name: str, config: str) -> None:
    content = json.loads((bundle_path(name) / "configs" / f"{config}.json").read_text())
    assert content["initialize"][0] == "$check_overrides()"
    assert "$from multiad_med.overrides import check_overrides" in content["imports"]


def test_the_command_ends_with_the_message_and_without_a_trace(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", TRAIN, "--max_epoch", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("Error: --max_epoch: there is no")
    assert "Traceback" not in result.stderr
