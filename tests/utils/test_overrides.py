"""A typo on the command line is an error that names the key that was meant."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fire
import monai.bundle
import monai.bundle.__main__ as monai_bundle
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from multiad_med.resources import bundle_path, config_files, read_config
from multiad_med.testing.cohorts import bundle_names
from multiad_med.utils.configs import literal
from multiad_med.utils.errors import InputError, user_error
from multiad_med.utils.overrides import check_overrides

CONFIGS = ("train.json", "inference.json", "evaluate.json")
TRAIN = str(bundle_path("multiad_brain_mri") / "configs" / "train.json")


def check(*options: str, config: str = TRAIN) -> None:
    words = [monai_bundle.__file__, "run", "training", "--config_file", config, *options]
    check_overrides({}, arguments=words)


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
    with pytest.raises(InputError, match=f"mean {meant}\\?"):
        check(option)


def test_a_key_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(InputError, match="no no_such_key") as error:
        check("--no_such_key", "1")
    assert " mean " not in str(error.value)


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


def test_two_lengths_of_one_training_are_refused() -> None:
    check("--steps", "30")
    with pytest.raises(InputError, match="steps and max_epochs"):
        check("--steps", "30", "--max_epochs", "3")


def test_tracking_keys_without_tracking_are_unknown() -> None:
    with pytest.raises(InputError, match="experiment_name"):
        check("--experiment_name", "x")


@pytest.mark.parametrize("form", ["['{0}','{1}']", "{0},{1}"])
def test_keys_of_a_mix_in_are_known(tmp_path: Path, form: str) -> None:
    mixin = tmp_path / "mix.json"
    mixin.write_text(json.dumps({"ranks": 2, "train#sampler#shuffle": False}))
    check("--ranks", "3", config=form.format(TRAIN, mixin))
    with pytest.raises(InputError, match="ranks"):
        check("--ranks", "3")


def test_keys_of_an_args_file_are_checked(tmp_path: Path) -> None:
    arguments = tmp_path / "args.json"
    arguments.write_text(json.dumps({"config_file": TRAIN, "max_epoch": 3}))
    with pytest.raises(InputError, match="max_epochs"):
        check_overrides(arguments=[monai_bundle.__file__, "run", "--args_file", str(arguments)])


def test_other_programs_are_left_alone() -> None:
    check_overrides(arguments=["pytest", "run", "--config_file", TRAIN, "--no_such_key", "1"])
    check_overrides(arguments=[monai_bundle.__file__, "ckpt_export", "--no_such_key", "1"])


@pytest.mark.parametrize("name", bundle_names())
@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_checks_first_of_all(name: str, config: str) -> None:
    content = read_config(name, config)
    assert content["initialize"][0] == "$check_overrides(__local_refs)"
    assert "$from multiad_med.utils.overrides import check_overrides" in content["imports"]


@pytest.mark.parametrize("name", bundle_names())
@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_keeps_paths_and_devices_as_typed(
    name: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(bundle_path(name) / "configs" / file) for file in config_files(config)]
    words = [
        "--config_file",
        str(paths),
        "--output_dir",
        "a#b",
        "--dataset_dir",
        "123",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", [monai_bundle.__file__, "run", "training", *words])
    # As Fire reads them.
    changed = {"output_dir": "a", "dataset_dir": 123, "device": "cpu"}
    workflow = ConfigWorkflow(paths, logging_file=False, **changed)
    workflow.initialize()
    parsed = workflow.parser.get_parsed_content
    assert (parsed("output_dir"), parsed("dataset_dir")) == ("a#b", "123")
    assert parsed("device") == torch.device("cpu")
    assert parsed("amp") is False


@pytest.mark.slow
def test_the_command_ends_with_the_message_and_without_a_trace(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", TRAIN, "--max_epoch", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("Error: --max_epoch: ")
    assert "Traceback" not in result.stderr


SEEN: list[dict[str, Any]] = []
CONFIG = {
    "imports": [
        "$from multiad_med.utils.overrides import check_overrides",
        "$from tests.utils.test_overrides import SEEN",
    ],
    "dataset_dir": "/data/default",
    "training_logs": None,
    "categories": None,
    "image_glob": "**/*",
    "device": "$torch.device('cpu')",
    "part": {"_target_": "dict", "folder": "@dataset_dir", "log_dir": "/logs"},
    "initialize": ["$check_overrides(__local_refs)"],
    "run": [
        "$SEEN.append({'path': @dataset_dir, 'joined': @dataset_dir + '/x', 'part': @part, "
        "'logs': @training_logs, 'categories': @categories, 'glob': @image_glob, 'device': @device})"
    ],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run a small config as ``python -m monai.bundle run`` does; what its parts were given."""

    def run_(*options: str, **config: Any) -> dict[str, Any]:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(CONFIG | config))
        words = [monai_bundle.__file__, "run", "--config_file", str(path), *options]
        monkeypatch.setattr(sys, "argv", words)
        try:
            fire.Fire(monai.bundle.run, command=words[2:])
        except RuntimeError as error:
            raise user_error(error) or error from error
        return SEEN.pop()

    return run_


# As a shell gives them. Fire alone makes of these: out, 123, 100000.0, 16, None, True, [1, 2], …
@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["out#2", "/a#b/c d", "123", "1e5", "0x10", "None", "True", "[1, 2]", "a,b", "1_000", "'q'",
     "user@host", "50%", "a$b", "./@x", "./$x", "./%x", "/a/b\\#c'd", "#"],
)  # fmt: skip
def test_a_path_is_the_one_that_was_typed(run: Callable[..., dict[str, Any]], path: str) -> None:
    for options in (["--dataset_dir", path], [f"--dataset_dir={path}"]):
        seen = run(*options)
        assert (seen["path"], seen["joined"]) == (path, f"{path}/x")
        assert seen["part"]["folder"] == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("@nowhere", "'@'.* \\./@nowhere"),
        ("$HOME/data", "'\\$'.* \\./\\$HOME/data"),
        ("$'/a#b'", "'#'.*separator"),
        ("@part#folder", "'#'.*separator"),
    ],
)
def test_a_path_that_could_be_syntax_is_refused(
    run: Callable[..., dict[str, Any]], path: str, reason: str
) -> None:
    with pytest.raises(InputError, match=rf"--dataset_dir {re.escape(path)}: .*{reason}"):
        run("--dataset_dir", path)


def test_monais_expressions_stay_expressions(run: Callable[..., dict[str, Any]]) -> None:
    assert run("--dataset_dir", "$'/a/' + 'b'")["path"] == "/a/b"
    assert run("--dataset_dir", "@image_glob")["path"] == "**/*"


def test_none_is_none_where_the_config_has_none(run: Callable[..., dict[str, Any]]) -> None:
    assert run("--training_logs", "None")["logs"] is None
    assert run("--training_logs", "12")["logs"] == "12"


def test_a_path_without_a_value_is_refused(run: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="--dataset_dir has no value"):
        run("--dataset_dir", "--device", "cpu")


def test_other_texts_keep_their_characters(run: Callable[..., dict[str, Any]]) -> None:
    seen = run("--categories", "['line#1', 'b']", "--image_glob", "a#b/*.png")
    assert (seen["categories"], seen["glob"]) == (["line#1", "b"], "a#b/*.png")


def test_a_part_of_a_part_cannot_have_them(run: Callable[..., dict[str, Any]]) -> None:
    assert run("--part#log_dir", "/b")["part"]["log_dir"] == "/b"
    for value in ("/a#b", "12"):
        with pytest.raises(InputError, match=rf"--part#log_dir {value}: "):
            run("--part#log_dir", value)


def test_paths_of_an_args_file(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    arguments = tmp_path / "args.yaml"
    arguments.write_text("dataset_dir: /a#b")
    assert run("--args_file", str(arguments))["path"] == "/a#b"
    arguments.write_text("dataset_dir: 123")
    with pytest.raises(InputError, match=r"--dataset_dir 123: .*quotes"):
        run("--args_file", str(arguments))
    arguments.write_text("dataset_dir: '123'")
    assert run("--args_file", str(arguments))["path"] == "123"


@pytest.mark.parametrize("word", ["cpu", "cpu:0"])
def test_a_device_may_be_a_word(run: Callable[..., dict[str, Any]], word: str) -> None:
    assert run("--device", word)["device"] == torch.device(word)
    assert run(device=word)["device"] == torch.device(word)  # of a config file


def test_a_device_that_is_none_is_refused(run: Callable[..., dict[str, Any]]) -> None:
    for word in ["gpu", f"cuda:{torch.cuda.device_count()}"]:
        with pytest.raises(InputError, match=f"device '{word}'"):
            run("--device", word)
    assert run("--device", "$torch.device('cpu')")["device"] == torch.device("cpu")


@pytest.mark.parametrize(
    "value",
    [
        "/a#b",
        "@x",
        "$x",
        "%x",
        "#",
        "it's #1 \\",
        "$import os",
        ["a#b", "@c"],
        {"a": "$b"},
        3,
        None,
        "x",
    ],
)
def test_a_literal_is_given_out_as_it_is(value: Any) -> None:
    parser = ConfigParser({"value": literal(value), "other": "@value"})
    assert parser.get_parsed_content("value") == value
    assert parser.get_parsed_content("other") == value


def test_a_literal_may_leave_expressions_alone() -> None:
    values = {"a": "$1 + 1", "b": "x#y", "c": ["@a", "#"]}
    parser = ConfigParser(literal(values, expressions=True))
    assert [parser.get_parsed_content(key) for key in "abc"] == [2, "x#y", [2, "#"]]
