"""Splits by subject, and the datalist that records them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist

from multiad_med.data import BmadBrainSplit, BmadLiverSlices, DatalistError, SubjectSplit
from multiad_med.data.splits import datalist_content, splits_hash
from multiad_med.resources import recipes_dir


def _items(subjects: list[str], **more: object) -> list[dict[str, object]]:
    return [{"image": f"/d/{s}.nii", "subject": s, "study": s, **more} for s in subjects]


def _who(splits: dict[str, list[dict[str, object]]]) -> dict[str, set[object]]:
    return {name: {item["subject"] for item in items} for name, items in splits.items()}


@given(
    subjects=st.sets(st.text("abcdef0123", min_size=1, max_size=4), min_size=3, max_size=40),
    seed=st.integers(0, 5),
)
def test_subjects_are_partitioned_whatever_the_order(subjects: set[str], seed: int) -> None:
    split = SubjectSplit(seed=seed)
    items = [i for s in sorted(subjects) for i in _items([s, s])]
    splits = split(items)
    who = _who(splits)
    assert who == _who(split(items[::-1]))
    assert set.union(*who.values()) == subjects
    assert sum(len(part) for part in who.values()) == len(subjects)
    assert all(who.values())
    assert all(item["split"] == name for name, part in splits.items() for item in part)


def test_fractions_are_met_to_one_subject() -> None:
    who = _who(
        SubjectSplit(training=0.6, validation=0.1, test=0.3)(_items([f"{i}" for i in range(53)]))
    )
    assert {name: len(part) for name, part in who.items()} == {
        "training": 32,
        "validation": 5,
        "test": 16,
    }


def test_another_seed_gives_another_split_and_a_further_subject_moves_few() -> None:
    subjects = [f"s{i:03d}" for i in range(100)]
    one = _who(SubjectSplit(seed=1)(_items(subjects)))
    assert one != _who(SubjectSplit(seed=2)(_items(subjects)))
    more = _who(SubjectSplit(seed=1)(_items([*subjects, "new"])))
    moved = [s for s in subjects for name in one if s in one[name] and s not in more[name]]
    assert len(moved) <= 2


def test_strata_are_divided_one_by_one() -> None:
    items = _items([f"a{i}" for i in range(10)], category="a")
    items += _items([f"b{i}" for i in range(10)], category="b")
    splits = SubjectSplit(training=0.8, validation=0.2, test=0, stratify="category")(items)
    assert [i["category"] for i in splits["validation"]].count("a") == 2
    assert len(splits["validation"]) == 4
    assert not splits["test"]


def test_published_splits_stay_and_validation_comes_from_training() -> None:
    items = _items([f"n{i}" for i in range(10)], split="training")
    items += _items(["t0", "t1"], split="test")
    splits = SubjectSplit(training=0.9, validation=0.1, test=0)(items)
    assert {name: len(part) for name, part in splits.items()} == {
        "training": 9,
        "validation": 1,
        "test": 2,
    }
    published = SubjectSplit(training=0.9, validation=0.1, test=0)(
        [*items, *_items(["v"], split="validation")]
    )
    assert len(published["training"]) == 10


def test_published_splits_can_be_renamed_and_studies_without_a_mask_left_out() -> None:
    items = [
        *_items(["a"], split="training", organ="o"),
        *_items(["b"], split="validation", organ="o"),
        *_items(["c"], split="test"),
    ]
    splits = SubjectSplit(validation=0, published={"validation": "test"}, needs=["organ"])(items)
    assert _who(splits) == {"training": {"a"}, "validation": set(), "test": {"b"}}


def test_anomalous_studies_without_a_mask_never_train() -> None:
    items = [*_items(["a", "b", "c"]), *_items(["x"], anomalous=True)]
    assert "x" in _who(SubjectSplit()(items))["test"]
    with pytest.raises(DatalistError, match=r"\b1 stud.*training.*anomalous.*x\.nii"):
        SubjectSplit()(
            [*_items(["a"], split="training"), *_items(["x"], split="training", anomalous=True)]
        )


def test_a_subject_in_two_published_splits_is_an_error_unless_told_otherwise() -> None:
    items = [*_items(["a", "b"], split="training"), *_items(["b"], split="test")]
    with pytest.raises(DatalistError, match=re.escape("b (training and test)")):
        SubjectSplit(validation=0)(items)
    splits = SubjectSplit(validation=0, allow_shared_subjects=True)(items)
    assert _who(splits)["test"] == {"b"}


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DatalistError, match="left for training"):
        SubjectSplit()(_items(["a"], split="test"))
    with pytest.raises(ValueError, match=r"training.*positive"):
        SubjectSplit(training=0)


def test_bmads_patients_and_slices_are_reproduced() -> None:
    ids = recipes_dir() / "splits" / "bmad_brain.json"
    lists = json.loads(ids.read_text())
    named = [n for key in ("training", "validation_normal", "test_normal") for n in lists[key]]
    others = [f"{n:05d}" for n in range(2000, 2000 + 1251 - len(named))]
    splits = BmadBrainSplit(ids)(_items([f"BraTS2021_{n}" for n in [*others, *named]]))
    who = _who(splits)
    # 424 patients train; 39 normal and 11 abnormal validate; 162 and 615 test.
    assert {name: len(part) for name, part in who.items()} == {
        "training": 424,
        "validation": 39 + 11,
        "test": 162 + 615,
    }
    assert who["training"] == {f"BraTS2021_{n}" for n in lists["training"]}
    slices = {str(item["subject"])[-5:]: item for part in splits.values() for item in part}
    assert slices["00753"]["wanted_slices"] == list(range(60, 100))
    assert slices["00753"]["normal_only"] is True
    assert slices["02000"]["wanted_slices"] == [60, 70, 80, 90]
    assert slices["02011"]["wanted_slices"] == [60, 68, 76, 84, 92]
    with pytest.raises(DatalistError, match="got 'BraTS20_Training_001'"):
        BmadBrainSplit(ids)(_items(["BraTS20_Training_001"]))


def test_bmads_liver_validation_is_the_first_slices_by_file_name() -> None:
    rows = [
        {"split": "test", "subject": f"lits-{v}", "slice": s, "state": state}
        for v in (2, 10)
        for s, state in ((9, "normal"), (10, "abnormal"), (11, "normal"))
    ] + [{"split": "training", "subject": "btcv-1", "slice": 0, "state": "normal"}]
    moved = BmadLiverSlices(abnormal=1, normal=3)(rows)
    # By name: liver_10_10 (abnormal), liver_10_11, liver_10_9, liver_2_10 (abnormal), liver_2_11, ...
    validation = {(r["subject"], r["slice"]) for r in moved if r["split"] == "validation"}
    assert validation == {("lits-10", 10), ("lits-10", 11), ("lits-10", 9), ("lits-2", 11)}
    assert [r["slice"] for r in moved] == [r["slice"] for r in rows]


def test_datalist_is_read_by_monai_with_counts_and_a_hash_of_the_split(tmp_path: Path) -> None:
    splits = SubjectSplit()(_items([f"{i}" for i in range(10)], label="/d/l.nii"))
    content = datalist_content(splits, name="n", description="d", modality="MR")
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    for split in ("training", "validation", "test"):
        items = load_decathlon_datalist(str(path), data_list_key=split)
        assert [i["image"] for i in items] == [i["image"] for i in splits[split]]
        assert content["counts"][split] == {"studies": len(items), "subjects": len(items)}
    assert content["numTraining"] == 6
    elsewhere = {n: [{**i, "image": "/e"} for i in part] for n, part in splits.items()}
    assert splits_hash(elsewhere) == content["split_sha256"]
    splits["test"].append(splits["training"].pop())
    assert splits_hash(splits) != content["split_sha256"]
