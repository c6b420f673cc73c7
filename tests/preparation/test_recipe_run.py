"""Running a recipe: resumed, parallel, honest about what failed, and never half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from multiad_med.data import SliceCache, SliceDataset, is_slice_cache
from multiad_med.data.datalist import SPLITS
from multiad_med.data.slice_cache import STUDIES
from multiad_med.preparation import PreparationError, Recipe, load_recipe, prepare
from multiad_med.preparation.prepare_study import StudyPreparation
from multiad_med.preparation.recipe_run import _alone_in
from multiad_med.resources import bundle_path
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.layouts import make_brats, make_mvtec
from tests.data.test_slice_cache import make_cache


def _recipe(**settings: Any) -> Recipe:
    return load_recipe("brats2021", {"size": 32, **settings})


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    make_brats(tmp_path / "brats", rng=np.random.default_rng(0), studies=4, sequences=["flair"])
    return tmp_path / "brats"


def _run(source: Path, target: Path, recipe: Recipe | None = None, workers: int = 0) -> Any:
    return prepare(recipe or _recipe(), source, target, workers=workers, progress=False)


def _times(target: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (target / STUDIES).iterdir()}


@pytest.mark.slow
def test_what_is_written_and_nothing_else(brats: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    _run(brats, target)
    assert sorted(p.name for p in target.iterdir()) == [
        "cache.json", "contact_sheet.png", "datalist.json", "index.csv", "studies",
    ]  # fmt: skip
    about = json.loads((target / "cache.json").read_text())
    assert about["recipe"] == "brats2021"
    assert about["settings"]["size"] == 32
    assert about["size"] == [32, 32]
    assert (
        about["split_sha256"] == json.loads((target / "datalist.json").read_text())["split_sha256"]
    )


@pytest.mark.slow
def test_unchanged_studies_are_not_prepared_again(brats: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert _run(brats, target).written == 4
    before = _times(target)
    again = _run(brats, target)
    assert (again.written, again.unchanged) == (0, 4)
    assert _times(target) == before
    # A new time without new content changes nothing; new content does.
    files = sorted(brats.rglob("*flair.nii.gz"))
    os.utime(files[0])
    assert _run(brats, target).unchanged == 4
    files[1].write_bytes(files[2].read_bytes())
    assert _run(brats, target).written == 1


@pytest.mark.slow
def test_other_settings_prepare_anew_and_another_recipe_is_refused(
    brats: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    _run(brats, target)
    assert _run(brats, target, _recipe(size=16)).written == 4
    assert SliceCache(target)[0]["image"].shape == (1, 16, 16)
    make_mvtec(tmp_path / "mvtec", rng=np.random.default_rng(0))
    with pytest.raises(PreparationError, match="recipe 'brats2021'"):
        _run(tmp_path / "mvtec", target, load_recipe("mvtec_ad"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(PreparationError, match="not empty"):
        _run(brats, tmp_path / "mine")
    # A datalist of one's own is not taken for a preparation's.
    own = '{"training": []}'
    (tmp_path / "mine/datalist.json").write_text(own)
    with pytest.raises(PreparationError, match="not empty"):
        _run(brats, tmp_path / "mine")
    assert (tmp_path / "mine/datalist.json").read_text() == own
    with pytest.raises(PreparationError, match="lies in the source"):
        _run(brats, brats / "slices")


@pytest.mark.slow
def test_two_preparations_of_one_folder_are_refused(brats: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    _run(brats, target)
    with _alone_in(target), pytest.raises(PreparationError, match="Another preparation"):
        _run(brats, target)
    assert _run(brats, target).unchanged == 4


def test_a_worker_ended_from_outside_is_said_and_the_rest_resumed(
    brats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyPreparation, "_prepare", lambda self, item: os.kill(os.getpid(), 9))
    with pytest.raises(PreparationError, match="fewer workers than 2"):
        _run(brats, tmp_path / "out", workers=2)
    monkeypatch.undo()
    assert _run(brats, tmp_path / "out").written == 4


@pytest.mark.slow
def test_another_seed_prepares_only_who_moved(brats: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    _run(brats, target)
    before = {r["study"]: s for s in SPLITS for r in SliceCache(target, split=s).index}
    summary = _run(brats, target, _recipe(seed=2))
    after = {r["study"]: s for s in SPLITS for r in SliceCache(target, split=s).index}
    moved = sum(before[study] != split for study, split in after.items())
    assert 0 < moved < 4
    assert (summary.written, summary.unchanged) == (moved, 4 - moved)


@pytest.mark.slow
def test_workers_change_nothing(brats: Path, tmp_path: Path) -> None:
    _run(brats, tmp_path / "one")
    _run(brats, tmp_path / "two", workers=2)
    for path in (tmp_path / "one" / STUDIES).iterdir():
        assert path.read_bytes() == (tmp_path / "two" / STUDIES / path.name).read_bytes()
    assert (tmp_path / "one/index.csv").read_text() == (tmp_path / "two/index.csv").read_text()


def test_a_bad_study_is_named_and_the_others_are_prepared(brats: Path, tmp_path: Path) -> None:
    bad = sorted(brats.rglob("*flair.nii.gz"))[1]
    bad.write_bytes(bad.read_bytes()[:500])
    target = tmp_path / "out"
    summary = _run(brats, target)
    assert summary.written == 3
    assert len(summary.failures) == 1
    assert str(bad) in summary.failures[0]
    assert "truncated" in str(summary)
    assert not any(bad.parent.name in p.name for p in (target / STUDIES).iterdir())
    datalist = json.loads((target / "datalist.json").read_text())
    assert sum(part["studies"] for part in datalist["counts"].values()) == 3
    for path in brats.rglob("*flair.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(PreparationError, match=r"[Nn]one of 4 studies"):
        _run(brats, tmp_path / "none")
    assert not is_slice_cache(tmp_path / "none")


def test_a_mask_on_another_grid_is_refused(brats: Path, tmp_path: Path) -> None:
    mask = sorted(brats.rglob("*seg.nii.gz"))[0]
    write_nifti(mask, np.zeros((48, 48, 23), np.uint8))
    assert "Resample the mask" in _run(brats, tmp_path / "out").failures[0]


@pytest.mark.slow
def test_killed_while_preparing_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, target = tmp_path / "brats", tmp_path / "out"
    make_brats(source, rng=np.random.default_rng(0), studies=12, shape=(96, 96, 48))
    code = (
        "import sys; from multiad_med.preparation import load_recipe, prepare; "
        "prepare(load_recipe('brats2021', {'size': 256}), sys.argv[1], sys.argv[2], workers=0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(target)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(target.glob(f"{STUDIES}/*.safetensors"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(target.glob(f"{STUDIES}/*.safetensors")))
    assert 3 <= done < 12
    assert not is_slice_cache(target)
    recipe = load_recipe("brats2021", {"size": 256})
    summary = _run(source, target, recipe)
    assert (summary.written, summary.unchanged) == (12 - done, done)
    assert not list(target.rglob(".partial-*"))
    _run(source, tmp_path / "undisturbed", recipe)
    assert (target / "index.csv").read_text() == (tmp_path / "undisturbed/index.csv").read_text()


def test_prepared_slices_equal_those_straight_from_the_volumes(tmp_path: Path) -> None:
    """The recipe for volumes and the brain bundle's own preprocessing see the same."""
    rng = np.random.default_rng(0)
    for index in range(4):
        write_nifti(tmp_path / f"in/s{index}.nii.gz", head(rng), np.diag([4.0, 4, 8, 1]))
    target = tmp_path / "out"
    _run(tmp_path / "in", target, load_recipe("volumes", {"size": 64}))
    cache = SliceCache(target)
    parser = ConfigParser()
    parser.read_config(bundle_path("multiad_brain_mri") / "configs/train.json")
    parser["size"] = 64
    transform = parser.get_parsed_content("train#preprocessing")
    data = json.loads((target / "datalist.json").read_text())["training"]
    direct = SliceDataset(data, transform, progress=False)
    assert len(direct) == len(cache) > 10
    for a, b in zip(direct, cache, strict=True):
        assert (a["slice"], a["subject"]) == (b["slice"], b["subject"])
        torch.testing.assert_close(a["image"], b["image"], atol=1 / 65535, rtol=0)
        assert torch.equal(a["foreground"], b["foreground"])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_no_file_stays_open_for_a_study_that_was_read(tmp_path: Path) -> None:
    """Else a cache of a thousand studies would exceed what a process may open."""
    make_cache(tmp_path)
    cache = SliceCache(tmp_path, split="training")
    before = len(os.listdir("/proc/self/fd"))
    assert len({slice_["study"] for slice_ in cache}) == 2
    assert len(os.listdir("/proc/self/fd")) == before
