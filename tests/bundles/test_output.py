"""All that ``python -m monai.bundle`` prints, in a run that goes well and in one that fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from multiad_med.resources import bundle_path, config_files
from multiad_med.testing.cohorts import COHORTS, write_fake_model

MONAI = "parsing config_file "
"""MONAI's own warning that a config is code, before it reads ours."""

HIDE = (
    "import runpy, sys; sys.modules[sys.argv.pop(1)] = None; "
    "runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)"
)
"""``python -m monai.bundle`` in a Python that lacks a package."""


def bundle(
    *words: str, folder: Path, without: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m monai.bundle`` in a folder."""
    start = ["-m", "monai.bundle"] if without is None else ["-c", HIDE, without]
    return subprocess.run(
        [sys.executable, *start, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def run(name: str, verb: str, *options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a bundle's config on the CPU."""
    root = bundle_path(name)
    config = {"training": "train", "evaluating": "evaluate"}.get(verb, verb)
    files = [str(root / "configs" / file) for file in config_files(f"{config}.json")]
    words = ["run", verb, "--config_file", files[0] if len(files) == 1 else str(files)]
    words += ["--bundle_root", str(root), "--device", "cpu", *options]
    return bundle(*words, folder=folder)


def lines(text: str) -> list[str]:
    """What is on a screen in the end, without times, empty lines and MONAI's first words."""
    shown = [part.rpartition("\r")[2].strip() for part in text.replace(" \r", "\r").splitlines()]
    untimed = [re.sub(r"^\d{4}-\d\d-\d\d [\d:,]+ - ", "", line) for line in shown]
    ours = [s for s in untimed if s and not s.startswith((MONAI, "INFO - Setting logging prop"))]
    return [s for s in ours if not re.match(r"(training|studies|images|images)\b.*\[", s)]


@pytest.mark.parametrize(
    ("name", "first", "calibrated", "done"),
    [
        (
            "multiad_brain_mri",
            [],
            [
                r"Calibrated.*\b8 slices, 1 volume, 1 patient\b",
                r"Few normal volumes.*\b3\b",
                r"Too few slices.*0\.05.*\b19\b",
                r"Too few volumes.*0\.05.*\b19\b",
                r"Too few patients.*0\.05.*\b19\b",
            ],
            "2 studies: 2 done, 0 skipped, 0 failed",
        ),
        (
            "multiad_industrial",
            [r"64x64 pixels.*resized to 64x64.*\b4 pixels"],
            [
                r"Calibrated.*\b1 image, 1 patient\b",
                r"Few normal images.*\b7\b",
                r"Too few images.*0\.05.*\b19\b",
                r"Too few patients.*0\.05.*\b19\b",
            ],
            "5 studies: 5 done, 0 skipped, 0 failed",
        ),
    ],
)
def test_every_line_of_a_normal_run_tells_something(
    tmp_path: Path, name: str, first: list[str], calibrated: list[str], done: str
) -> None:
    data = COHORTS[name](tmp_path)
    train = ["--dataset_dir", str(data), "--ckpt_dir", "run", "--output_dir", "log", "--size", "64"]
    trained = run(name, "training", *train, "--max_epochs", "2", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    out = lines(trained.stdout)
    tested = [line for line in out if re.match(r"(INFO|WARNING) - .*[Ss]elf-test", line)]
    assert tested[0].startswith("INFO - Self-test")
    assert len(tested) <= 3, "one line, and what it warns of: near chance, reacts to light"
    loss = r"\d\.\d{4}"
    expected = [
        *first,
        *(rf"epoch {epoch} of 2.*\b{loss}\b.*training.*\b{loss}\b.*held-out" for epoch in (1, 2)),
        r"\brun/model\.pt\b",
        *calibrated,
        "multiad predict NEW -m run/model.pt -o MAPS",
    ]
    others = [line for line in out if line not in tested]
    assert len(others) == len(expected), others
    for line, wanted in zip(others, expected, strict=True):
        assert re.search(rf"^INFO - .*{wanted}", line)
    assert re.search(r"training \[2/2\]: \[\d+/\d+\]", trained.stderr)
    assert not [s for s in lines(trained.stderr) if not s.startswith("reading ")]

    inference = ["--dataset_dir", str(data), "--ckpt_path", "run/model.pt", "--output_dir", "maps"]
    inferred = run(name, "inference", *inference, folder=tmp_path)
    assert inferred.returncode == 0, inferred.stderr
    assert lines(inferred.stdout) == [f"INFO - {done}"]
    assert lines(inferred.stderr) == []
    assert re.search(r"\[\d/" + done[0] + r"\]", inferred.stderr)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a cohort, of whose two studies one is damaged."""
    folder = tmp_path_factory.mktemp("model")
    write_fake_model("multiad_brain_mri", folder / "model.pt")
    data = COHORTS["multiad_brain_mri"](folder)
    splits = json.loads((data / "datalist.json").read_text())
    (data / splits["test"][0]["image"]).write_bytes(b"none")
    return folder


@pytest.mark.parametrize(
    ("verb", "options", "reason"),
    [
        ("training", ["--dataset_dir", "nothing"], r"\bnothing is not a folder"),
        ("training", ["--max_epoch", "3"], "--max_epoch: .*no max_epoch"),
        ("training", ["--preset", "none"], "preset 'none'.*choose"),
        ("inference", ["--dataset_dir", "nothing"], r"\bnothing is not a folder"),
        ("inference", ["--ckpt_path", "none.pt"], r"no weights file none\.pt"),
        ("evaluating", ["--dataset_dir", "nothing"], r"\bnothing is not a folder"),
    ],
)
def test_the_last_line_of_an_error_is_its_reason(
    model: Path, tmp_path: Path, verb: str, options: list[str], reason: str
) -> None:
    given = {"--dataset_dir": str(model / "cohort"), "--output_dir": "out"}
    if verb == "training":
        given["--ckpt_dir"] = "run"
    else:
        given["--ckpt_path"] = str(model / "model.pt")
    given |= dict(zip(options[::2], options[1::2], strict=True))
    ended = run("multiad_brain_mri", verb, *(w for p in given.items() for w in p), folder=tmp_path)
    assert ended.returncode == 1
    told = lines(ended.stderr)
    assert re.search(f"^Error: .*{reason}", told[-1])
    assert [s for s in told if not s.startswith("reading ")] == told[-1:]
    assert "Traceback" not in ended.stdout + ended.stderr
    assert lines(ended.stdout) == []


def test_a_study_that_failed_is_the_last_line_though_others_are_done(
    model: Path, tmp_path: Path
) -> None:
    given = ["--dataset_dir", str(model / "cohort"), "--ckpt_path", str(model / "model.pt")]
    given += ["--output_dir", "maps", "--size", "64"]
    ended = run("multiad_brain_mri", "inference", *given, folder=tmp_path)
    assert ended.returncode == 1
    (told,) = lines(ended.stderr)
    assert re.search(rf"^Error: 1 of 2 .*{re.escape(str(model))}/cohort/", told)
    assert len(list((tmp_path / "maps").rglob("*map.nii.gz"))) == 1
    assert "Traceback" not in ended.stdout + ended.stderr


def export(model: Path, *options: str, folder: Path, **kwargs: str) -> list[str]:
    configs = bundle_path("multiad_brain_mri") / "configs"
    words = ["onnx_export", "network_def", "--filepath", "m.onnx", "--input_shape", "[1,3,64,64]"]
    words += ["--meta_file", str(configs / "metadata.json"), "--ckpt_file", str(model)]
    words += ["--config_file", str(configs / "inference.json"), *options]
    ended = bundle(*words, folder=folder, **kwargs)
    assert ended.returncode == 1
    assert not (folder / "m.onnx").exists()
    return lines(ended.stderr)


def test_an_export_without_its_package_names_the_extra(model: Path, tmp_path: Path) -> None:
    path = model / "model.pt"
    (told,) = export(path, "--ckpt_path", str(path), folder=tmp_path, without="onnxscript")
    assert re.search(r"^Error: .*\bonnxscript\b.*`pip install 'multiad-med\[export\]'`", told)


def test_an_error_in_another_verb_ends_with_its_reason(model: Path, tmp_path: Path) -> None:
    (told,) = export(model / "model.pt", "--preset", "none", folder=tmp_path)
    assert re.search("^Error: .*preset 'none'", told)


def test_a_fault_keeps_its_trace(tmp_path: Path) -> None:
    given = ["--dataset_dir", str(COHORTS["multiad_brain_mri"](tmp_path)), "--batch_size", "x"]
    ended = run("multiad_brain_mri", "training", *given, "--ckpt_dir", "run", folder=tmp_path)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
