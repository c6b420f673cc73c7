"""How commands end: one line and status 2 for a mistake, 1 for failed studies, 130 for Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from multiad_med.cli import app
from multiad_med.cli.commands import PartlyFailedError
from multiad_med.utils import MultiADError
from multiad_med.utils.errors import user_error
from tests.bundles.test_interrupted_inference import hear_ctrl_c
from tests.cli.runs import mistake, multiad

MISTAKES = [
    (["prepare", "none", "--source", "s", "--output", "t"], "No recipe 'none'"),
    (["prepare", "--check", "none"], "none does not exist"),
    (["export", "slices", "none", "--output", "t"], "holds no prepared slices"),
    (["export", "onnx", "none.pt", "-o", "t"], "no model file none.pt"),
    (["evaluate", "none", "-m", "m", "-o", "o"], "no model file m"),
    (["evaluate", "none", "-m", "text.json", "-o", "o", "--device", "gpu"], "The device 'gpu'"),
    (["convert", "m", "--output", "o", "--bundle", "x"], "no model file m"),
    (["convert", "text.json", "-o", "o", "--bundle", "x"], "text.json: not a readable"),
    (["cross-calibrate", "none", "--model", "m", "--output", "o"], "no model file m"),
    (["view", "none.nii", "map.nii", "--output", "o"], "none.nii does not exist"),
    (
        ["dicom", "none", "map.nii", "--scores", "none.json", "--output", "o"],
        "none.json cannot be read",
    ),
    (
        ["dicom", "none", "map.nii", "--scores", "text.json", "--output", "o"],
        "text.json is not a readable",
    ),
    (["serve", "none", "--model", "m", "--output", "o"], "no model file m"),
    (["bundles", "x"], "Unknown bundle 'x'"),
    (["label", "init", "app"], "No bundle has a model"),
    (["label", "start", "app", "studies"], "app is no app"),
    (["weights", "check", "efficientnet_lite0", "text.json"], "text.json is corrupt"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_debug_shows_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("no JSON")
    assert message in mistake(*arguments)
    shown = CliRunner().invoke(app, [*arguments, "--debug"])
    assert shown.exception is not None
    assert isinstance(user_error(shown.exception), MultiADError)  # with its trace
    assert "Error: " not in shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], r"'trian'.* mean 'train'\?.*`multiad --help`"),
        (["train", "brain_mri", "x"], r"Missing .*'--output'.*`multiad train --help`"),
        (["train", "brain", "x", "-o", "y"], r"'brain'.* mean brain_mri\?"),
        (["train", "mri", "x", "-o", "y"], r"'mri' .*'brain_mri', 'liver_ct'"),
        (["predict", "x", "-m", "m", "-o", "y", "--dicom", "seg,rs"], r"'rs' .*'seg'"),
        (["serve", "x", "-m", "m", "-o", "y", "--kind", "seq"], r"mean seg\?"),
        (["view", "x", "y", "-o", "z", "--window", "lever"], r"mean liver\?"),
        (["benchmark", "ablate", "x", "-o", "y", "--part", "third"], r"'third' .*'all'"),
        (["benchmark", "compare", "x", "-o", "y", "--method", "padin"], r"mean padim\?"),
        (["export", "slices", "x", "-o", "y", "--bits", "9"], r"'9' .*'8', '16'"),
        (["export", "slices", "x"], r"--output"),
        (["prepare", "lits"], r"recipe.*--source.*--output"),
        (["--nope"], r"option.*--nope"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_with_the_nearest_choice(
    arguments: list[str], message: str
) -> None:
    result = multiad(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert re.search(message, result.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_trace_before_and_behind_the_command(before: bool) -> None:
    arguments = ["--debug", "bundles", "x"] if before else ["bundles", "x", "--debug"]
    code = f"import sys; sys.argv[1:] = {arguments}; from multiad_med.cli import app; app()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "Traceback" in run.stderr
    assert "InputError: Unknown bundle 'x'" in run.stderr


def _fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("multiad_med.resources.bundle_path", fail)
    return CliRunner().invoke(app, ["bundles", "multiad_brain_mri"])


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a bug"),
        RuntimeError("a bug"),
        ValueError("a bug"),
        KeyError("a"),
        OSError("a"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_a_bug_and_a_lack_of_memory_keep_their_trace(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    result = _fail(monkeypatch, error)
    assert result.exception is error
    assert "Error:" not in result.output


def test_studies_that_failed_among_good_ones_are_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _fail(monkeypatch, PartlyFailedError("1 of 2 studies failed"))
    assert result.exit_code == 1
    assert result.stderr == "Error: 1 of 2 studies failed\n"


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fail(monkeypatch, KeyboardInterrupt()).exit_code == 130


@pytest.mark.slow
def test_ctrl_c_in_a_process_is_status_130_without_a_trace() -> None:
    code = (
        "import sys, time, multiad_med.resources as r\n"
        "def wait(*_): print('at work', flush=True); time.sleep(60)\n"
        "r.bundle_path = wait\n"
        "sys.argv[1:] = ['bundles', 'brain_mri']\n"
        "from multiad_med.cli import app; app()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told


@pytest.mark.parametrize("words", [["init", "a#b"], ["start", "a#b", "."]])
def test_a_folder_that_monai_label_would_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = mistake("label", *words)
    assert f"{tmp_path}/a#b: " in told
    assert "'#'" in told
    assert not list(tmp_path.iterdir())
