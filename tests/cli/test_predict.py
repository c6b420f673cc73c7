"""``multiad predict``: a table, files, the next command; DICOM results; what cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multiad_med.card import ModelCard
from multiad_med.inference.int8 import INT8
from multiad_med.networks.model_file import CARD
from tests.cli.conftest import write_heads
from tests.cli.runs import mistake, multiad
from tests.dicom_files import save
from tests.serving.pacs import head_series

CPU = ("--device", "cpu")


@pytest.mark.slow
def test_a_table_the_files_and_the_next_command_are_shown(model: Path, tmp_path: Path) -> None:
    new, maps = write_heads(tmp_path / "new", 2, seed=1), tmp_path / "maps"
    result = multiad("predict", new, "-m", model, "-o", maps, *CPU)
    assert result.exit_code == 0, result.output
    for name in ("s0", "s1"):
        scores = json.loads((maps / f"{name}_anomaly.json").read_text())
        row = next(line for line in result.stdout.splitlines() if f"{name}.nii.gz" in line)
        assert f"{scores['volume_score']:.3f}" in row
        assert f"{scores['volume_p_value']:.3f}" in row
    assert re.search(rf"multiad view {new}/s0\.nii\.gz {maps}/s0_anomaly_map", result.stdout)
    again = multiad("predict", new / "s1.nii.gz", "-m", model, "-o", maps, *CPU)
    assert again.exit_code == 0
    assert "s0.nii.gz" not in again.stdout.replace(str(new / "s0.nii.gz"), "")


@pytest.mark.slow
def test_a_run_time_is_chosen_recorded_and_another_does_them_again(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    new, maps = write_heads(tmp_path / "new", 1), tmp_path / "maps"

    def run(*words: str) -> tuple[dict[str, Any], str]:
        result = multiad("predict", new, "-m", model, "-o", maps, *words, *CPU)
        assert result.exit_code == 0, result.output
        (row,) = json.loads((maps / "summary.json").read_text())["studies"]
        return json.loads((maps / "s0_anomaly.json").read_text()), row["status"]

    fast, status = run()
    assert (fast["settings"]["runtime"], status) == ("openvino", "done")
    again, status = run("--runtime", "torch")
    assert (again["settings"]["runtime"], status) == ("torch", "done")
    assert run("--runtime", "torch")[1] == "skipped"
    assert fast["volume_score"] == pytest.approx(again["volume_score"], abs=1e-3)
    words = ("predict", new, "-m", model, "-o", maps, *CPU)
    assert "--runtime" in mistake(*words, "--set", "runtime=torch")


def test_a_study_that_fails_among_good_ones_is_status_1(model: Path, tmp_path: Path) -> None:
    new = write_heads(tmp_path / "new", 1)
    (new / "bad.nii.gz").write_bytes(b"no image")
    result = multiad("predict", new, "-m", model, "-o", tmp_path / "maps", *CPU)
    assert result.exit_code == 1
    assert "s0.nii.gz" in result.stdout
    assert "Error: 1 of 2 studies failed:" in result.stderr
    assert f"{new}/bad.nii.gz: truncated" in result.stderr.partition("Error: ")[2]
    alone = multiad("predict", new / "bad.nii.gz", "-m", model, "-o", tmp_path / "other", *CPU)
    assert alone.exit_code == 2


@pytest.mark.slow
def test_dicom_results_are_written_beside_the_map_of_a_series(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    new, maps = write_heads(tmp_path / "new", 1), tmp_path / "maps"
    save(head_series("1", patient="anna"), new / "anna")
    for _ in range(2):  # again replaces them
        result = multiad("predict", new, "-m", model, "-o", maps, "--dicom", "pm,sr", *CPU)
        assert result.exit_code == 0, result.output
        (folder,) = [path for path in maps.rglob("*_dicom") if path.is_dir()]
        assert sorted(path.name for path in folder.iterdir()) == ["pm.dcm", "sr.dcm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "sizee=3"], r"mean size\?"),
        (["--set", "ckpt_path=x"], "ckpt_path=x: .*--model"),
        (["--set", "size=128"], r"size 64\b.*\b128\b"),
        (["--device", "gpu"], "device 'gpu'"),
        (["--bundle", "multiad_liver_ct"], '"multiad_brain_mri".*"multiad_liver_ct"'),
    ],
)
def test_wrong_settings_are_told_and_nothing_is_written(
    model: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    new = write_heads(tmp_path / "new", 1)
    told = mistake("predict", new, "-m", model, "-o", tmp_path / "maps", *options)
    assert re.search(message, told)
    assert not list(tmp_path.rglob("*_anomaly*"))


def test_no_model_images_an_empty_folder_and_a_folder_in_use_are_told(
    model: Path, tmp_path: Path
) -> None:
    new, out = write_heads(tmp_path / "new", 1), tmp_path / "maps"
    told = mistake("predict", new, "-m", "none.pt", "-o", out)
    assert re.search(r"\bnone\.pt\b.*`multiad train`", told)
    assert f"mean {model}?" in mistake("predict", new, "-m", model.parent, "-o", out)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    assert "holds images" in mistake("predict", tmp_path / "images", "-m", model, "-o", out)
    (tmp_path / "empty").mkdir()
    assert "holds no studies" in mistake("predict", tmp_path / "empty", "-m", model, "-o", out)
    told = mistake("predict", new, "-m", model, "-o", model.parent)
    assert re.search(r"other files.*\bbest\.pt", told)
    assert "holds other files" in mistake("predict", new, "-m", model, "-o", new)


def test_an_address_for_results_needs_ray(model: Path, tmp_path: Path) -> None:
    new = write_heads(tmp_path / "new", 1)
    told = mistake("predict", new, "-m", model, "-o", "s3://archive/maps")
    assert told.endswith(
        "--output s3://archive/maps: only `multiad predict --ray` writes to object storage. "
        "Give a folder."
    )


@pytest.mark.parametrize(("set_for", "expected"), [("torch", "torch"), (INT8, "openvino")])
def test_workers_of_ray_take_one_run_time_which_is_the_models(
    set_for: str, expected: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def predict_studies(*_: object, **options: Any) -> list[dict[str, Any]]:
        asked.update(options)
        return []

    monkeypatch.setattr("multiad_med.scale.predict_studies", predict_studies)
    state = torch.load(model, weights_only=True)
    content = ModelCard.from_tensor(state[CARD]).as_json()
    content["calibration"]["runtime"] = set_for
    text = json.dumps(content).encode()
    state[CARD] = torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy())
    torch.save(state, tmp_path / "model.pt")
    new = write_heads(tmp_path / "new", 1)
    words = ("-m", tmp_path / "model.pt", "-o", tmp_path / "maps", "--ray", "local")
    multiad("predict", new, *words)
    assert asked["runtime"] == expected


def test_a_model_of_another_version_is_told(model: Path, tmp_path: Path) -> None:
    state = torch.load(model, weights_only=True)
    content = ModelCard.from_tensor(state[CARD]).as_json() | {"format": 99}
    text = json.dumps(content).encode()
    state[CARD] = torch.from_numpy(np.frombuffer(text, dtype=np.uint8).copy())
    torch.save(state, tmp_path / "newer.pt")
    new = write_heads(tmp_path / "new", 1)
    words = ("-o", tmp_path / "maps", *CPU)
    assert "format 99" in mistake("predict", new, "-m", tmp_path / "newer.pt", *words)
    del state[CARD]
    torch.save(state, tmp_path / "older.pt")
    told = mistake("predict", new, "-m", tmp_path / "older.pt", *words)
    assert "`multiad convert`" in told
    (tmp_path / "text.pt").write_text("no model")
    told = mistake("predict", new, "-m", tmp_path / "text.pt", *words)
    assert re.search(r"\btext\.pt\b.*not a readable", told)
