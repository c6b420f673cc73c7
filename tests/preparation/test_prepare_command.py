"""The command line, as a user meets it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from multiad_med.cli import app
from multiad_med.data import SliceCache, is_slice_cache
from multiad_med.preparation import recipe_names
from multiad_med.testing.layouts import make_brats, make_lits, make_mvtec
from tests.dicom_files import ct_slices, save


def multiad(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    make_brats(tmp_path / "brats", rng=np.random.default_rng(0), studies=3, sequences=["flair"])
    return tmp_path / "brats"


def test_list_explains_every_recipe() -> None:
    status, output = multiad("prepare", "--list")
    assert status == 0
    for name in recipe_names():
        assert f"{name}: " in output
    assert output.count("Source:") == output.count("settings:") == len(recipe_names())


def test_check_says_what_a_folder_holds(brats: Path, tmp_path: Path) -> None:
    status, output = multiad("prepare", "--check", brats)
    assert status == 0
    assert output.startswith("brats2021: 3 studies of 3 subjects")
    make_mvtec(tmp_path / "mvtec", rng=np.random.default_rng(0))
    assert multiad("prepare", "--check", tmp_path / "mvtec")[1].startswith("mvtec_ad: 18 studies")
    slices = ct_slices(np.zeros((3, 8, 8), np.uint16))
    for part in slices:
        part.PatientID = "anna"
    save(slices, tmp_path / "dicom")
    output = multiad("prepare", "--check", tmp_path / "dicom")[1]
    assert re.search(r"\banna\b.*\bCT\b.*\b3 files", output)


@pytest.mark.slow
def test_prepare_and_export_with_settings(brats: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    status, output = multiad(
        "prepare", "brats2021", "--source", brats, "--target", cache,
        "--set", "size=32", "--set", "margin=1", "--workers", 0,
    )  # fmt: skip
    assert status == 0
    assert "3 studies prepared, 0 unchanged, 0 failed" in output
    assert SliceCache(cache).about["settings"]["margin"] == 1
    status, output = multiad("export", cache, "--target", tmp_path / "png", "--layout", "bmad")
    assert status == 0
    assert (tmp_path / "png/train/good").is_dir()
    assert multiad("export", cache, "--target", tmp_path / "png")[0] == 2


@pytest.mark.slow
def test_a_failed_study_makes_the_status_non_zero(brats: Path, tmp_path: Path) -> None:
    bad = next(brats.rglob("*flair.nii.gz"))
    bad.write_bytes(b"no volume")
    cache = tmp_path / "cache"
    status, output = multiad(
        "prepare", "brats2021", "--source", brats, "--target", cache, "--workers", 0
    )
    assert status == 1
    assert f"failed: {bad}" in output
    assert is_slice_cache(cache)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["zip", "tar", "gztar"])
def test_archives_are_unpacked_beside_the_slices(brats: Path, tmp_path: Path, suffix: str) -> None:
    archive = shutil.make_archive(str(tmp_path / "release"), suffix, brats)
    for expected in ("3 studies prepared, 0 unchanged", "0 studies prepared, 3 unchanged"):
        status, output = multiad(
            "prepare", "brats2021", "--source", archive, "--target", tmp_path / "cache",
            "--set", "size=16", "--workers", 0,
        )  # fmt: skip
        assert status == 0
        assert expected in output
    assert len(list(tmp_path.glob("cache-unpacked-*"))) == 1


def test_a_messy_zip_of_dicom_becomes_one_volume_per_series(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for patient in ("anna", "berta"):
        for series in (1, 2):
            values = rng.integers(900, 1100, (6, 24, 24)).astype(np.uint16)
            slices = ct_slices(values)
            for part in slices:
                part.PatientID = patient
                part.SeriesInstanceUID = f"1.2.3.{patient == 'anna'}.{series}".replace(
                    "True", "1"
                ).replace("False", "2")
            save(slices, tmp_path / "in" / patient / f"s{series}", seed=series)
    (tmp_path / "in/readme.txt").write_text("hello")
    archive = shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "in")
    status, output = multiad(
        "prepare", "volumes", "--source", archive, "--target", tmp_path / "mr", "--workers", 0
    )
    assert status == 2
    assert "4 of 4 DICOM series" in output
    assert "Set kind=ct" in output
    status, output = multiad(
        "prepare", "volumes", "--source", archive, "--target", tmp_path / "cache",
        "--set", "kind=ct", "--set", "size=24", "--workers", 0,
    )  # fmt: skip
    assert status == 0, output
    assert "4 studies prepared" in output
    subjects = {
        row["subject"]
        for split in ("training", "validation")
        for row in SliceCache(tmp_path / "cache", split=split).index
    }
    assert subjects == {"anna", "berta"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["brats"], "choose one of"),
        (["brats2021", "--set", "window=1"], "no setting 'window'"),
        (["brats2021", "--set", "size"], "NAME=VALUE"),
        (["lits"], "recipe 'brats2021'"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    brats: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    target = tmp_path / "cache"
    status, output = multiad("prepare", *arguments, "--source", brats, "--target", target)
    assert status == 2
    assert output.startswith("Error: ")
    assert message in output
    assert not target.exists()


def test_missing_arguments_and_sources_are_named(tmp_path: Path) -> None:
    assert multiad("prepare", "lits")[0] == 2
    status, output = multiad(
        "prepare", "lits", "--source", tmp_path / "none", "--target", tmp_path / "out"
    )
    assert status == 2
    assert "does not exist" in output
    make_lits(tmp_path / "lits", rng=np.random.default_rng(0), volumes=0, healthy=0, tests=1)
    status, output = multiad(
        "prepare", "lits", "--source", tmp_path / "lits", "--target", tmp_path / "out"
    )
    assert status == 2
    assert "left for training" in output


def test_a_climbing_archive_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../escaped.nii", b"x")
    status, output = multiad(
        "prepare", "volumes", "--source", tmp_path / "bad.zip", "--target", tmp_path / "in/out"
    )
    assert status == 2
    assert "escaped.nii" in output
    assert not list(tmp_path.rglob("escaped*"))
