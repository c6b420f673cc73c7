"""Readers in processes of their own, interruptions and progress: no failure and no half study stays."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multiad_med.data import StudyError, file_sha256
from multiad_med.inference import image_maps, scores
from multiad_med.inference.map_writers import StudyMapWriter
from multiad_med.resources import bundle_path, run_bundle
from multiad_med.testing.cohorts import COHORTS, FAST, one_bundle_per_input, write_fake_model
from multiad_med.utils.errors import MultiADError, user_error
from tests.bundles.models import infer
from tests.bundles.test_folder_inference import nifti_head, statuses

BUNDLE = "multiad_brain_mri"
FILES = ("anomaly_map.nii.gz", "anomaly_mask.nii.gz", "anomaly.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_model(BUNDLE, tmp_path_factory.mktemp("model") / "model.pt")


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("bundle", one_bundle_per_input())
@pytest.mark.parametrize("config", ["inference.json", "evaluate.json"])
def test_workers_do_each_study_once_and_lose_no_failure(
    bundle: str, config: str, tmp_path: Path
) -> None:
    data = COHORTS[bundle](tmp_path)
    model = write_fake_model(bundle, tmp_path / "model.pt")
    bad = next(p for pattern in ("test/good/000.png", "images/s4.*") for p in data.rglob(pattern))
    bad.write_bytes(bad.read_bytes()[:200])
    tables = []
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        infer(bundle, data, model, out, config=config, **{"dataloader#num_workers": workers})
        table = json.loads((out / "summary.json").read_text())["studies"]
        assert [row["image"] for row in table if row["status"] == "failed"] == [str(bad)]
        assert (out / "report.html").is_file() == (config == "evaluate.json")
        for row in table:
            del row["seconds"]
        tables.append(table)
    assert tables[0] == tables[1]
    assert files_of(tmp_path / "out0") == files_of(tmp_path / "out2")


def test_what_workers_read_is_finished_and_recorded_as_read_without_them(
    model: Path, tmp_path: Path
) -> None:
    for name in "abc":
        nifti_head(tmp_path / f"in/{name}.nii.gz")
    workers = {"dataloader#num_workers": 2}
    first = infer(BUNDLE, tmp_path / "in", model, tmp_path / "out", **workers)
    assert set(statuses(first).values()) == {"done"}
    text = (tmp_path / "out/b_anomaly.json").read_text()
    assert file_sha256(tmp_path / "in/b.nii.gz") in text
    (tmp_path / "out/b_anomaly.json").unlink()
    for options, b in ((workers, "done"), ({}, "skipped")):
        again = statuses(infer(BUNDLE, tmp_path / "in", model, tmp_path / "out", **options))
        assert again == {"a.nii.gz": "skipped", "b.nii.gz": b, "c.nii.gz": "skipped"}
    assert (tmp_path / "out/b_anomaly.json").read_text() == text


def test_of_two_studies_of_one_name_the_first_is_done_whoever_reads_them(
    model: Path, tmp_path: Path
) -> None:
    for number, name in enumerate(("a.nii", "a.nii.gz")):
        nifti_head(tmp_path / "in" / name, seed=number)
    workers = {"dataloader#num_workers": 2}
    rows = infer(BUNDLE, tmp_path / "in", model, tmp_path / "out", **workers)
    assert statuses(rows) == {"a.nii": "done", "a.nii.gz": "failed"}
    assert len(files_of(tmp_path / "out")) == 3 + 2 + 3  # and overlay, viewer and the summaries


def test_batches_of_several_studies_are_refused(model: Path, tmp_path: Path) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    with pytest.raises(MultiADError) as error:
        infer(BUNDLE, tmp_path / "in", model, tmp_path / "out", **{"dataloader#batch_size": 2})
    assert re.search(r"dataloader#batch_size.*\b1\b.*got 2", str(user_error(error.value)))


def test_a_worker_that_is_killed_is_told_with_what_to_do(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiad_med.readers import LoadVolumed

    nifti_head(tmp_path / "in/a.nii.gz")
    tests = os.getpid()

    def end(*_: Any) -> None:
        assert os.getpid() != tests, "a study was read in the main process"
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(LoadVolumed, "__call__", end)
    with pytest.raises(MultiADError) as error:
        run_bundle(
            BUNDLE,
            "inference.json",
            workflow_type="infer",
            dataset_dir=str(tmp_path / "in"),
            ckpt_path=str(model),
            output_dir=str(tmp_path / "out"),
            **FAST,
            **{"dataloader#num_workers": 1},
        )
    told = error.value
    assert isinstance(told, StudyError)
    assert "memory" in str(told)
    assert "fewer dataloader#num_workers" in str(told)


def interruptions() -> Iterator[tuple[str, Any, str]]:
    """Where a study's files are written: of volumes map, mask, scores; of images map, image, scores."""
    for bundle in (BUNDLE, "multiad_industrial"):
        written = 2 if bundle == BUNDLE else 1
        for number in range(written + 1):
            yield pytest.param(bundle, number, id=f"{bundle}-{number}")


@pytest.mark.parametrize(("bundle", "number"), list(interruptions()))
def test_ctrl_c_while_files_are_written_leaves_nothing_of_the_study_and_the_next_run_does_it(
    bundle: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = COHORTS[bundle](tmp_path)
    model = write_fake_model(bundle, tmp_path / "model.pt")
    calls = 0

    def interrupted(function: Any, at: int) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            result = function(*args, **kwargs)  # the file is there, and then comes the signal
            if calls == at + 1:
                raise KeyboardInterrupt
            return result

        return call

    monkeypatch.setattr(StudyMapWriter, "write", interrupted(StudyMapWriter.write, number))
    if bundle != BUNDLE:
        monkeypatch.setattr(image_maps, "overlaid", interrupted(image_maps.overlaid, number))
    monkeypatch.setattr(scores, "write_json", interrupted(scores.write_json, number))
    with pytest.raises(KeyboardInterrupt):
        infer(bundle, data, model, tmp_path / "out")
    assert files_of(tmp_path / "out") == []
    monkeypatch.undo()
    rows = infer(bundle, data, model, tmp_path / "out")
    assert set(statuses(rows).values()) == {"done"}


def test_ctrl_c_while_an_earlier_runs_files_are_removed_leaves_none_of_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    infer(BUNDLE, tmp_path / "in", model, tmp_path / "out")
    unlink, interrupted = Path.unlink, False

    def once(self: Path, missing_ok: bool = False) -> None:
        nonlocal interrupted
        unlink(self, missing_ok=missing_ok)
        if not interrupted and self.name == "a_anomaly.json":
            interrupted = True
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", once)
    with pytest.raises(KeyboardInterrupt):
        infer(BUNDLE, tmp_path / "in", model, tmp_path / "out", overwrite=True)
    assert [name for name in files_of(tmp_path / "out") if name.startswith("a_")] == []


def command(model: Path, *options: str) -> list[str]:
    root = bundle_path(BUNDLE)
    return [
        *(sys.executable, "-m", "monai.bundle", "run", "inference"),
        *("--bundle_root", str(root), "--config_file", str(root / "configs/inference.json")),
        *("--dataset_dir", "in", "--ckpt_path", str(model), "--output_dir", "out"),
        *("--size", "64", *options),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def hear_ctrl_c() -> None:
    """Undo what a shell does to its jobs in the background, which do not hear Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_real_run_leaves_whole_studies_only(
    model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    for index in range(60):
        nifti_head(tmp_path / f"in/s{index:02}.nii.gz")
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            command(model, "--dataloader#num_workers", "1"),
            cwd=tmp_path,
            env=environment(),
            stdout=log,
            stderr=log,
            preexec_fn=hear_ctrl_c,
        )
        end = time.monotonic() + 120
        while len(list((tmp_path / "out").glob("*_anomaly.json"))) < 5:  # the bar has been drawn
            alive = running.poll() is None and time.monotonic() < end
            assert alive, (tmp_path / "log").read_text()
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(60) != 0
    found = {p.name for p in (tmp_path / "out").iterdir()}
    studies = {name.partition("_")[0] for name in found}
    assert 0 < len(studies) < 60
    assert found == {f"{study}_{end}" for study in studies for end in FILES}
    text = (tmp_path / "log").read_text()
    assert re.search(r"\[\d+/60\]", text)  # the total is known beforehand


def test_progress_tells_the_total_and_the_time_left(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        nifti_head(tmp_path / f"in/{name}.nii.gz")
    (tmp_path / "in/b.nii.gz").write_bytes(b"")
    for _ in range(2):  # anew; then two of the three are finished
        with pytest.raises(StudyError):
            run(tmp_path, model)
        shown = capfd.readouterr().err
        assert re.search(r"studies: *\[1/3\] +33%.*\[[\d:]+<[\d:]+\]", shown)
        assert "/?" not in shown


def run(folder: Path, model: Path) -> None:
    logging.getLogger("ignite").setLevel(logging.ERROR)
    try:
        run_bundle(
            BUNDLE,
            "inference.json",
            workflow_type="infer",
            dataset_dir=str(folder / "in"),
            ckpt_path=str(model),
            output_dir=str(folder / "out"),
            **FAST,
        )
    except Exception as error:
        raise user_error(error) or error from None
