"""Volumes of B-scans in a folder of any forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiad_med.data import DatalistError
from multiad_med.datasets import find_bscans


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_files_and_folders_of_images_are_volumes(tmp_path: Path) -> None:
    touch(tmp_path, "a.npy", "p2/os.vol", "p2/od.E2E", "n.nii.gz", "notes.txt", "d.dcm")
    touch(tmp_path, "p1/od/10.png", "p1/od/2.PNG", "p1/os/1.bmp", "p1/os/.hidden.png")
    touch(tmp_path, "n_anomaly_map.nii.gz", ".cache/x.npy")
    items = find_bscans(tmp_path)
    assert {Path(i["image"]).relative_to(tmp_path).as_posix(): i["subject"] for i in items} == {
        "a.npy": "a.npy",
        "n.nii.gz": "n",
        "p2/od.E2E": "p2",
        "p2/os.vol": "p2",
        "p1/od": "p1",
        "p1/os": "p1",
    }


def test_a_pattern_chooses_images_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "od/10.png", "od/2.png", "od/thumbnail.jpg")
    (item,) = find_bscans(tmp_path, image_glob="**/*.png")
    assert [Path(path).name for path in item["image"]] == ["2.png", "10.png"]


def test_images_in_the_folder_itself_are_one_volume(tmp_path: Path) -> None:
    touch(tmp_path / "eye", "1.png", "2.png")
    assert find_bscans(tmp_path / "eye") == [{"image": str(tmp_path / "eye"), "subject": "eye"}]


def test_nothing_is_found_in_an_empty_folder_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    assert find_bscans(tmp_path) == []
    with pytest.raises(DatalistError, match="does not exist"):
        find_bscans(tmp_path / "nowhere")
