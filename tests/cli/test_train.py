"""``multiad train``: a model from normal studies, and every mistake that a first user makes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from multiad_med.networks import read_card
from multiad_med.scoring import Level
from multiad_med.testing.brains import head, write_nifti
from tests.cli.conftest import AFFINE, write_heads
from tests.cli.runs import mistake, multiad
from tests.dicom_files import ct_slices, save


@pytest.mark.slow
def test_the_options_are_on_the_models_card(model: Path) -> None:
    card = read_card(model)
    assert card is not None
    assert card.domain == "brain_mri"
    assert card.preparation["size"] == 64
    assert card.training["seed"] == 3
    assert card.training["max_epochs"] == 1
    assert {card.level(level).rate for level in (Level.SLICE, Level.VOLUME)} == {0.2}


def test_the_same_command_again_goes_on_and_changed_settings_are_refused(
    run_folder: Path, tmp_path: Path
) -> None:
    normal = run_folder.parent / "normal"
    words = ("train", "brain_mri", normal, "-o", run_folder, "--device", "cpu", "--rate", 0.2)
    before = (run_folder / "checkpoint.pt").stat().st_mtime_ns
    told = mistake(*words, "--set", "size=64", "--set", "max_epochs=1", "--seed", 4)
    assert "seed" in told
    assert (run_folder / "checkpoint.pt").stat().st_mtime_ns == before


def test_one_scan_a_folder_with_masks_and_a_folder_in_use_are_told(tmp_path: Path) -> None:
    options = ("--device", "cpu", "--set", "size=64")
    out = tmp_path / "out"
    one = write_heads(tmp_path / "one", 1)
    assert "two subjects" in mistake("train", "brain_mri", one, "-o", out, *options)
    masked = write_heads(tmp_path / "masked", 2)
    write_nifti(masked / "s0_seg.nii.gz", np.zeros((40, 48, 10), np.uint8), AFFINE)
    assert "look like masks" in mistake("train", "brain_mri", masked, "-o", out, *options)
    assert not out.exists()
    told = mistake("train", "brain_mri", masked, "-o", one, *options)
    assert re.search(r"other files.*\bs0\.nii\.gz", told)


def test_labels_tell_which_files_are_masks(tmp_path: Path) -> None:
    normal = write_heads(tmp_path / "normal", 1)
    write_nifti(normal / "s0_seg.nii.gz", np.zeros((40, 48, 10), np.uint8), AFFINE)
    told = mistake(
        *("train", "brain_mri", normal, "-o", tmp_path / "out", "--labels", "*_seg.nii.gz"),
        *("--device", "cpu"),
    )
    assert "two subjects" in told  # and not: looks like a mask


def test_ct_given_to_the_brain_model_is_told(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(900, 1100, (6, 24, 24)).astype(np.uint16)
    save(ct_slices(values), tmp_path / "ct" / "p1")
    told = mistake("train", "brain_mri", tmp_path / "ct", "-o", tmp_path / "out", "--device", "cpu")
    assert re.search(r"no DICOM image series.*\['CT'\]", told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "max_epoch=3"], r"max_epoch\b.*mean max_epochs\?"),
        (["--set", "ckpt_dir=x"], "ckpt_dir=x: .*--output"),
        (["--device", "gpu"], "device 'gpu'"),
        (["--images", "*T1*", "--set", "sizes=3"], r"mean size\?"),
        (["--preset", "papre"], r"--preset: .*'papre'.* mean paper\?"),
        (["--preset", "paper", "--set", "max_epoch=3"], r"train\.json.*paper\.json"),
        (["--preset", "paper", "--set", "preset=plain"], "--set preset=plain: .*--preset paper"),
        (["--set", "steps=9", "--set", "max_epochs=2"], "steps and max_epochs"),
    ],
)
def test_wrong_settings_and_devices_are_told_before_the_training(
    tmp_path: Path, options: list[str], message: str
) -> None:
    write_nifti(tmp_path / "in" / "a.nii.gz", head(np.random.default_rng(0)), AFFINE)
    told = mistake("train", "brain_mri", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert re.search(message, told)
    assert not (tmp_path / "out").exists()


def test_no_images_can_be_chosen_by_name_in_the_domain_of_images(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    told = mistake("train", "industrial", tmp_path / "in", "-o", tmp_path / "o", "--images", "*")
    assert re.search("--images: .*multiad_industrial", told)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert multiad("train", "brain_mri", tmp_path / "in", "-o", tmp_path / "o").exit_code == 2
