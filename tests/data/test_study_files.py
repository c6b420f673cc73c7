"""Studies of a folder: images, their masks and their subjects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multiad_med.data import DatalistError, find_studies
from multiad_med.testing.brains import write_nifti


def _volume(path: Path) -> Path:
    return write_nifti(path, np.zeros((2, 2, 2), np.int16))


def test_masks_are_found_by_their_pattern(tmp_path: Path) -> None:
    for subject in ("p1", "p2"):
        _volume(tmp_path / subject / "T1c_x.nii.gz")
        _volume(tmp_path / subject / "Flair_x.nii.gz")
        _volume(tmp_path / subject / "seg.nii.gz")
    items = find_studies(tmp_path, image_glob="*/T1c*.nii.gz", label_glob="*/seg.nii.gz")
    assert [Path(i["label"]).parent.name for i in items] == ["p1", "p2"]
    _volume(tmp_path / "p2" / "seg2.nii.gz")
    with pytest.raises(DatalistError, match=r"exactly one mask .* found 2"):
        find_studies(tmp_path, image_glob="*/T1c*.nii.gz", label_glob="*/seg*.nii.gz")


def test_organ_masks_belong_to_the_image_whose_name_they_begin_with(tmp_path: Path) -> None:
    for name in ("a", "a_liver", "b", "only/ct", "only/liver"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    items = find_studies(tmp_path, organ_glob="**/*liver.nii.gz")
    pairs = {Path(i["image"]).name: Path(i["organ"]).name for i in items if "organ" in i}
    assert len(items) == 3
    assert pairs == {"a.nii.gz": "a_liver.nii.gz", "ct.nii.gz": "liver.nii.gz"}
    (tmp_path / "a_old_liver.nii.gz").touch()
    with pytest.raises(DatalistError, match=r"a\.nii\.gz has 2 organ masks in its folder"):
        find_studies(tmp_path, organ_glob="**/*liver.nii.gz")


def test_hidden_files_and_results_are_no_studies(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    names = ["a.nii", "._a.nii", ".cache/b.nii", "a_anomaly_map.nii.gz", "a_anomaly_mask.nii.gz"]
    for name in names:
        (tmp_path / name).touch()
    assert [Path(i["image"]).name for i in find_studies(tmp_path)] == ["a.nii"]


def test_folders_that_name_a_part_of_the_data_are_no_subjects(tmp_path: Path) -> None:
    for name in ("train/anna/v.nii.gz", "train/berta/v.nii.gz", "images/carla.nii.gz"):
        _volume(tmp_path / name)
    subjects = {item["subject"] for item in find_studies(tmp_path)}
    assert subjects == {"anna", "berta", "carla"}


def test_files_of_one_name_in_two_folders_are_two_subjects(tmp_path: Path) -> None:
    for name in ("a/T1.nii.gz", "b/T1.nii.gz", "train/T1.nii.gz", "test/T1.nii.gz"):
        _volume(tmp_path / name)
    subjects = {item["subject"] for item in find_studies(tmp_path)}
    assert subjects == {"a", "b", "train/T1", "test/T1"}
