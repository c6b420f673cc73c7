"""Inference over folders as hospitals have them: mixed, with bad studies, interrupted, repeated."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiad_med.data import file_sha256
from multiad_med.inference import StudyMapWriter
from multiad_med.resources import bundle_path
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.cohorts import write_fake_model
from multiad_med.utils.errors import MultiADError, user_error
from tests.bundles import models
from tests.bundles.test_sources import dicom_head

BUNDLE = "multiad_brain_mri"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_model("multiad_brain_mri", tmp_path_factory.mktemp("model") / "model.pt")


def nifti_head(path: Path, *, seed: int = 0) -> Path:
    volume = head(np.random.default_rng(seed), (32, 32, 6))
    return write_nifti(path, volume, np.diag([4.0, 4.0, 8.0, 1.0]))


def infer(data: Path, model: Path, out: Path, **override: Any) -> dict[str, dict[str, Any]]:
    return models.infer(BUNDLE, data, model, out, **override)


def statuses(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: row["status"] for name, row in rows.items()}


def test_nifti_and_dicom_in_one_folder_are_all_done(model: Path, tmp_path: Path) -> None:
    nifti_head(tmp_path / "in/clinic/x.nii.gz")
    nifti_head(tmp_path / "in/plain.nii")
    dicom_head(tmp_path / "in/pacs", "anna")
    (tmp_path / "in/readme.txt").write_text("not an image")
    (tmp_path / "in/._x.nii.gz").write_bytes(b"of a Mac")
    rows = infer(tmp_path / "in", model, tmp_path / "out")
    assert statuses(rows) == {"x.nii.gz": "done", "plain.nii": "done", "anna": "done"}
    for name in ("clinic/x", "plain", "pacs/anna"):
        for end in ("_map.nii.gz", "_mask.nii.gz", ".json"):
            assert (tmp_path / f"out/{name}_anomaly{end}").is_file()
    for row in rows.values():
        assert row["decision"] == ("anomalous" if row["score"] >= 0.5 else "normal")
        assert row["seconds"] > 0
    with (tmp_path / "out/summary.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [{k: str(v) for k, v in row.items()} for row in rows.values()] == table


def test_finished_studies_are_skipped_until_image_model_or_settings_change(
    model: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        nifti_head(data / f"{name}.nii.gz")
    first = infer(data, model, out)
    scores = json.loads((out / "a_anomaly.json").read_text())
    assert scores["image_sha256"] == file_sha256(data / "a.nii.gz")
    made_by = {"size": 64, "min_fraction": 0.1, "transform": None, "runtime": "torch"}
    assert scores["settings"] == made_by
    before = (out / "a_anomaly_map.nii.gz").stat().st_mtime_ns

    again = infer(data, model, out)
    assert statuses(again) == {"a.nii.gz": "skipped", "b.nii.gz": "skipped"}
    assert again["a.nii.gz"]["score"] == first["a.nii.gz"]["score"]
    assert (out / "a_anomaly_map.nii.gz").stat().st_mtime_ns == before

    nifti_head(data / "a.nii.gz", seed=1)
    (out / "b_anomaly.json").unlink()  # as a run that was killed leaves it
    nifti_head(data / "c.nii.gz")
    changed = infer(data, model, out)
    assert set(statuses(changed).values()) == {"done"}
    assert len(changed) == 3

    other = write_fake_model("multiad_brain_mri", tmp_path / "other.pt", seed=1)
    assert set(statuses(infer(data, other, out)).values()) == {"done"}
    assert set(statuses(infer(data, other, out, min_fraction=0.2)).values()) == {"done"}
    assert set(statuses(infer(data, other, out, min_fraction=0.2)).values()) == {"skipped"}
    overwritten = infer(data, other, out, min_fraction=0.2, overwrite=True)
    assert set(statuses(overwritten).values()) == {"done"}


@pytest.mark.parametrize("inside", ["results", "."])
def test_results_within_the_folder_are_no_studies(model: Path, tmp_path: Path, inside: str) -> None:
    nifti_head(tmp_path / "a.nii.gz")
    dicom_head(tmp_path, "anna")
    expected = {"a.nii.gz": "done", "anna": "done"}
    assert statuses(infer(tmp_path, model, tmp_path / inside)) == expected
    again = infer(tmp_path, model, tmp_path / inside)
    assert statuses(again) == dict.fromkeys(expected, "skipped")
    assert statuses(infer(tmp_path, model, tmp_path / "elsewhere")) == expected


def test_results_inside_a_series_own_folder_do_not_change_its_hash(
    model: Path, tmp_path: Path
) -> None:
    series = dicom_head(tmp_path, "anna")
    assert statuses(infer(series, model, series)) == {"anna": "done"}
    assert statuses(infer(series, model, series)) == {"anna": "skipped"}


def test_a_full_disk_fails_the_study_and_leaves_nothing_of_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        nifti_head(tmp_path / f"in/{name}.nii.gz")
    write = StudyMapWriter.write

    def full(self: StudyMapWriter, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        if Path(filename).name == "b_anomaly_mask.nii.gz":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(filename))
        write(self, filename, verbose, **kwargs)

    monkeypatch.setattr(StudyMapWriter, "write", full)
    rows = infer(tmp_path / "in", model, tmp_path / "out")
    assert statuses(rows) == {"a.nii.gz": "done", "b.nii.gz": "failed", "c.nii.gz": "done"}
    message = rows["b.nii.gz"]["message"]
    assert message.startswith(str(tmp_path / "in/b.nii.gz"))
    assert "No space left on device" in message
    assert "run again" in message
    assert "Traceback" not in message
    assert rows["b.nii.gz"]["score"] is None
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(("b_", "."))]
    monkeypatch.undo()
    rows = infer(tmp_path / "in", model, tmp_path / "out")
    assert statuses(rows) == {"a.nii.gz": "skipped", "b.nii.gz": "done", "c.nii.gz": "skipped"}


def test_studies_whose_results_would_have_one_name_do_not_overwrite_each_other(
    model: Path, tmp_path: Path
) -> None:
    nifti_head(tmp_path / "in/a.nii")
    nifti_head(tmp_path / "in/a.nii.gz", seed=1)
    rows = infer(tmp_path / "in", model, tmp_path / "out")
    assert statuses(rows) == {"a.nii": "done", "a.nii.gz": "failed"}
    assert re.search(r"overwrite.*a\.nii\b(?!\.gz)", rows["a.nii.gz"]["message"])
    scores = json.loads((tmp_path / "out/a_anomaly.json").read_text())
    assert scores["image"].endswith("a.nii")


def test_a_study_that_is_refused_leaves_the_results_that_it_would_replace(
    model: Path, tmp_path: Path
) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    nifti_head(tmp_path / "other/a.nii.gz", seed=2)
    out = tmp_path / "out"
    models.infer("multiad_brain_mri", tmp_path / "in", model, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("a_*")}
    (row,) = models.infer("multiad_brain_mri", tmp_path / "other", model, out).values()
    assert row["status"] == "failed"
    assert "which an earlier run wrote to" in row["message"]
    assert {path: path.stat().st_mtime_ns for path in out.glob("a_*")} == before
    models.infer("multiad_brain_mri", tmp_path / "other", model, out, overwrite=True)
    assert json.loads((out / "a_anomaly.json").read_text())["image"].endswith("other/a.nii.gz")


def test_series_of_another_modality_are_told_and_passed_over(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dicom_head(tmp_path / "in", "anna")
    dicom_head(tmp_path / "in", "berta-maria", modality="CT")
    with caplog.at_level(logging.WARNING):
        assert statuses(infer(tmp_path / "in", model, tmp_path / "out")) == {"anna": "done"}
    assert re.search(r"'berta-maria' passed over.*\bCT\b.*\bMR\b", caplog.text)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda folder: (folder / "notes.txt").write_text("x"), "no DICOM image series"),
        (lambda folder: dicom_head(folder, "ct", modality="CT"), r"but of \['CT'\]"),
        (lambda folder: nifti_head(folder / "ct_seg.nii.gz"), "look like masks"),
        (
            lambda folder: (folder / "datalist.json").write_text('{"test": []}'),
            "no study to run",
        ),
    ],
)
def test_a_folder_with_nothing_to_do_is_an_error(
    model: Path, tmp_path: Path, fill: Any, message: str
) -> None:
    (tmp_path / "in").mkdir()
    fill(tmp_path / "in")
    with pytest.raises(MultiADError) as error:
        infer(tmp_path / "in", model, tmp_path / "out")
    assert re.search(message, str(user_error(error.value)))


def test_the_command_ends_with_a_status_when_a_study_failed(model: Path, tmp_path: Path) -> None:
    good = nifti_head(tmp_path / "in/good.nii.gz")
    (tmp_path / "in/cut.nii.gz").write_bytes(good.read_bytes()[:500])
    root = bundle_path(BUNDLE)
    command = [
        *(sys.executable, "-m", "monai.bundle", "run", "inference"),
        *("--bundle_root", str(root), "--config_file", str(root / "configs/inference.json")),
        *("--logging_file", str(root / "configs/logging.conf"), "--dataset_dir", "in"),
        *("--ckpt_path", str(model), "--output_dir", "out", "--size", "64"),
    ]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    failed = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert failed.returncode != 0
    assert "2 studies: 1 done, 0 skipped, 1 failed" in failed.stdout
    assert "Error: 1 of 2 studies failed: in/cut.nii.gz: " in failed.stderr
