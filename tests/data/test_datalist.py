"""Datalists: patient-level splits, and every way in which one can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist

from multiad_med.data import DatalistError, load_datalist, split_subjects
from multiad_med.testing.brains import write_nifti


def _volume(path: Path) -> Path:
    return write_nifti(path, np.zeros((2, 2, 2), np.int16))


def _write(folder: Path, content: object) -> Path:
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def test_splits_paths_and_subjects_are_read(cohort: Path) -> None:
    lists = load_datalist(cohort)
    assert [len(lists[s]) for s in ("training", "validation", "test")] == [3, 1, 2]
    assert all(Path(item["image"]).is_file() for items in lists.values() for item in items)
    assert [item["subject"] for item in lists["training"]] == ["s0", "s1", "s2"]
    assert load_datalist(cohort / "datalist.json") == lists


def test_monai_reads_the_same_file(cohort: Path) -> None:
    theirs = load_decathlon_datalist(str(cohort / "datalist.json"), True, "training")
    assert [d["image"] for d in theirs] == [d["image"] for d in load_datalist(cohort)["training"]]


def test_a_folder_of_volumes_is_split_by_subject(tmp_path: Path) -> None:
    for subject in range(10):
        for visit in range(2):
            _volume(tmp_path / f"sub{subject}" / f"visit{visit}.nii.gz")
    lists = load_datalist(tmp_path, seed=3)
    subjects = [{item["subject"] for item in lists[s]} for s in ("training", "validation")]
    assert [len(s) for s in subjects] == [8, 2]
    assert not subjects[0] & subjects[1]
    assert len(lists["training"]) == 16
    assert lists == load_datalist(tmp_path, seed=3)
    assert len(lists["test"]) == 20


def test_single_volume_is_a_test_study_alone(tmp_path: Path) -> None:
    _volume(tmp_path / "a.nii")
    lists = load_datalist(tmp_path)
    assert (lists["training"], lists["validation"]) == ([], [])
    assert lists["test"][0]["subject"] == "a"


def test_subject_in_two_splits_is_refused_and_named(tmp_path: Path) -> None:
    _volume(tmp_path / "a.nii")
    _volume(tmp_path / "b.nii")
    content = {
        "training": [{"image": "a.nii", "subject": "jane"}],
        "test": [{"image": "b.nii", "subject": "jane"}],
    }
    with pytest.raises(DatalistError, match=r"two splits: jane \(training and test\)"):
        load_datalist(_write(tmp_path, content))


@pytest.mark.parametrize("split", ["training", "validation"])
def test_anomalous_study_without_mask_is_refused_for_training(tmp_path: Path, split: str) -> None:
    _volume(tmp_path / "a.nii")
    content = {split: [{"image": "a.nii", "anomalous": True}]}
    with pytest.raises(DatalistError, match=r"marked anomalous.*a\.nii"):
        load_datalist(_write(tmp_path, content))
    _volume(tmp_path / "mask.nii")
    content[split][0]["label"] = "mask.nii"
    assert load_datalist(_write(tmp_path, content))[split]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": [{"image": "missing.nii"}]}, r"missing\.nii.*'training'"),
        ({"training": [{"label": "x"}]}, "has no `image`"),
        ({"train": []}, "none of the splits"),
        ([1], "none of the splits"),
    ],
)
def test_wrong_datalists_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DatalistError, match=message):
        load_datalist(_write(tmp_path, content))


def test_unreadable_datalist_and_empty_or_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatalistError, match="No file in"):
        load_datalist(tmp_path)
    with pytest.raises(DatalistError, match="is not a folder"):
        load_datalist(tmp_path / "nowhere")
    (tmp_path / "datalist.json").write_bytes(b"\xff{")
    with pytest.raises(DatalistError, match=r"datalist\.json.*not a readable"):
        load_datalist(tmp_path)


@pytest.mark.slow
@given(
    st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=30, unique=True),
    st.integers(0, 1000),
    st.floats(0.01, 0.99),
)
def test_split_is_a_partition_and_ignores_order(
    subjects: list[str], seed: int, fraction: float
) -> None:
    training, validation = split_subjects(subjects, validation_fraction=fraction, seed=seed)
    assert training | validation == set(subjects)
    assert not training & validation
    assert training
    assert validation
    again = split_subjects(reversed(subjects * 2), validation_fraction=fraction, seed=seed)
    assert again == (training, validation)


def test_one_subject_cannot_be_split() -> None:
    with pytest.raises(DatalistError, match=r"two subjects.*\['a'\]"):
        split_subjects(["a", "a"])


@pytest.mark.parametrize(
    ("names", "subjects"),
    [
        (["a/T1.nii.gz", "b/T1.nii.gz"], ["a", "b"]),
        (["a/T1.nii.gz", "a/T2.nii.gz", "b/T1.nii.gz"], ["a", "a", "b"]),
        (["train/1.nii.gz", "test/1.nii.gz"], ["train/1", "test/1"]),
        (["imagesTr/l_1.nii.gz", "imagesTs/l_2.nii.gz"], ["l_1", "l_2"]),
        (["site/p1.nii.gz", "site/p2.NII.GZ"], ["p1", "p2"]),
    ],
)
def test_items_without_subject_are_called_by_file_or_by_folder(
    tmp_path: Path, names: list[str], subjects: list[str]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    lists = load_datalist(_write(tmp_path, {"test": [{"image": name} for name in names]}))
    assert [item["subject"] for item in lists["test"]] == subjects


def test_a_byte_order_mark_and_plain_names_are_read(tmp_path: Path) -> None:
    _volume(tmp_path / "a.nii")
    (tmp_path / "datalist.json").write_text('{"test": ["a.nii"]}', encoding="utf-8-sig")
    (item,) = load_datalist(tmp_path)["test"]
    assert item == {"image": str(tmp_path / "a.nii"), "subject": "a"}


def test_null_is_a_thing_not_given(tmp_path: Path) -> None:
    _volume(tmp_path / "a.nii")
    item = {"image": "a.nii", "label": None, "subject": None, "anomalous": None}
    (found,) = load_datalist(_write(tmp_path, {"test": [item]}))["test"]
    assert found == {"image": str(tmp_path / "a.nii"), "subject": "a"}


@pytest.mark.parametrize(("label", "anomalous"), [(0, False), (1, True)])
def test_a_class_in_place_of_a_mask_says_whether_a_study_is_anomalous(
    tmp_path: Path, label: int, anomalous: bool
) -> None:
    _volume(tmp_path / "a.nii")
    item = {"image": "a.nii", "label": label}
    (found,) = load_datalist(_write(tmp_path, {"test": [item]}))["test"]
    assert found["anomalous"] is anomalous
    assert "label" not in found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": 7}, r"`label`.*got 7\..*`anomalous`"),
        ({"label": ""}, "`label`.*got ''"),
        ({"organ": [1]}, r"`organ`.*got \[1\]"),
        ({"image": 7}, "`image` must be"),
        ({"anomalous": "no"}, "`anomalous`.*true or false.*got 'no'"),
    ],
)
def test_what_is_no_path_is_refused(tmp_path: Path, values: dict, message: str) -> None:
    _volume(tmp_path / "a.nii")
    with pytest.raises(DatalistError, match=message):
        load_datalist(_write(tmp_path, {"test": [{"image": "a.nii", **values}]}))
