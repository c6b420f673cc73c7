"""Real-IAD: splits from its files, views of a sample together, faults named."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from multiad_med.data import SubjectSplit
from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_real_iad
from multiad_med.testing.layouts import make_real_iad
from multiad_med.utils.errors import InputError

TABLE = "realiad_jsons/realiad_jsons/audiojack.json"


@pytest.fixture
def tree(tmp_path: Path, rng: np.random.Generator) -> Path:
    make_real_iad(tmp_path, rng=rng)
    return tmp_path


def test_a_sample_is_the_subject_of_its_five_views(tree: Path) -> None:
    items = find_real_iad(tree)
    assert Counter(item["split"] for item in items) == {"training": 20, "test": 10}
    assert set(Counter(item["subject"] for item in items).values()) == {5}
    ill = [item for item in items if item["subject"] == "audiojack/NG/HS/S0006"]
    # Two views show the defect.
    assert [item["anomalous"] for item in ill] == [True, True, False, False, False]
    assert [item["kind"] for item in ill] == ["HS", "HS", "OK", "OK", "OK"]
    assert all(Path(item["label"]).is_file() for item in ill[:2])
    assert not any("label" in item for item in items if not item["anomalous"])
    assert {item["category"] for item in items} == {"audiojack"}


def test_calibration_holds_out_whole_samples(tree: Path) -> None:
    splits = SubjectSplit(training=0.75, validation=0.25, test=0)(find_real_iad(tree))
    assert [len(splits[name]) for name in splits] == [15, 5, 10]
    assert len({item["subject"] for item in splits["validation"]}) == 1


def test_contaminated_training_counts_as_normal(tree: Path) -> None:
    content = json.loads((tree / TABLE).read_text())
    content["train"].append(content["test"].pop(5))  # a view with defect
    table = tree / "realiad_jsons/realiad_jsons_fuiad_0.1/audiojack.json"
    table.parent.mkdir()
    table.write_text(json.dumps(content))
    items = find_real_iad(tree, table="realiad_jsons_fuiad_0.1")
    (defect,) = [i for i in items if i["kind"] == "HS" and i["split"] == "training"]
    assert not defect["anomalous"]
    assert "label" not in defect


def test_resolution_is_chosen_where_there_are_several(tree: Path) -> None:
    shutil.copytree(tree / "realiad_256", tree / "realiad_raw")
    with pytest.raises(DatalistError, match=r"resolutions \['256', 'raw'\]"):
        find_real_iad(tree)
    assert "/realiad_256/" in find_real_iad(tree, resolution=256)[0]["image"]
    assert "/realiad_raw/" in find_real_iad(tree, resolution="raw")[0]["image"]


def test_missing_and_unknown_parts_are_named(tree: Path) -> None:
    with pytest.raises(DatalistError, match=r"no category \['toy'\]; it has \['audiojack'\]"):
        find_real_iad(tree, categories="toy")
    with pytest.raises(DatalistError, match=r"`table` can be one of \['realiad_jsons'\]"):
        find_real_iad(tree, table="realiad_jsons_sv")
    next(tree.rglob("*_mask.png")).unlink()
    with pytest.raises(DatalistError, match=r"1 images or masks of realiad_jsons .*_mask\.png"):
        find_real_iad(tree)
    shutil.rmtree(tree / "realiad_jsons")
    with pytest.raises(DatalistError, match=r"none: unpack realiad_jsons\.zip"):
        find_real_iad(tree)
    shutil.rmtree(tree / "realiad_256")
    with pytest.raises(DatalistError, match="no folder realiad_256"):
        find_real_iad(tree)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable JSON"),
        ('{"train": []}', "no list `test`"),
        ("[]", "no list `train`"),
        ('{"train": [{"image_path": "a.jpg"}], "test": []}', "no image_path or anomaly_class"),
    ],
)
def test_damaged_split_files_are_named(tree: Path, content: str, message: str) -> None:
    (tree / TABLE).write_text(content)
    with pytest.raises((DatalistError, InputError), match=rf"audiojack\.json.*{message}"):
        find_real_iad(tree)
