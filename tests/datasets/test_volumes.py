"""Volumes of no known set: folders and tables, and each fault of a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_volumes

Touch = Callable[..., Path]


def _table(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_folder_gives_studies_in_natural_order(touch: Touch) -> None:
    items = find_volumes(touch("p10/a.nii.gz", "p2/a.nii", "p2/b 1.nii.gz"))
    assert [(item["subject"], item["study"]) for item in items] == [
        ("p2", "p2/a"),
        ("p2", "p2/b_1"),
        ("p10", "p10/a"),
    ]


def test_masks_of_a_folder_follow_their_pattern(touch: Touch) -> None:
    folder = touch("p/t1.nii.gz", "p/mask.nii.gz")
    (item,) = find_volumes(folder, image_glob="*/t1.nii.gz", label_glob="*/mask.nii.gz")
    assert item["label"] == str(folder / "p/mask.nii.gz")


def test_folder_without_volumes_tells_what_it_holds(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"\b2 x \.txt, 1 x no suffix"):
        find_volumes(touch("a.txt", "b.TXT", "c"))


def test_table_gives_every_column(touch: Touch) -> None:
    folder = touch("images/a.nii.gz", "b.nii", "m.nii")
    text = (
        "\ufeffimage,label,organ,subject,study,split,anomalous\n"
        "images/a.nii.gz,m.nii,m.nii,p1,first visit,test,Yes\n"
        "b.nii,,,,,,no\n"
    )
    assert find_volumes(_table(folder, text)) == [
        {
            "image": str(folder / "images/a.nii.gz"),
            "label": str(folder / "m.nii"),
            "organ": str(folder / "m.nii"),
            "subject": "p1",
            "study": "first_visit",
            "split": "test",
            "anomalous": True,
        },
        {"image": str(folder / "b.nii"), "subject": "b", "study": "b", "anomalous": False},
    ]


def test_table_must_say_what_rows_without_a_label_are(touch: Touch) -> None:
    folder = touch("a.nii", "b.nii", "m.nii")
    with pytest.raises(DatalistError, match=r"\b1 of 2 rows.*no label.*b\.nii"):
        find_volumes(_table(folder, "image,label\na.nii,m.nii\nb.nii,\n"))


def test_table_with_tabs(touch: Touch) -> None:
    folder = touch("a.nii")
    table = _table(folder, "subject\timage\np, 1\ta.nii\n", "table.TSV")
    assert find_volumes(table)[0]["subject"] == "p, 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\nx.nii\n", r"line 2: image .*x\.nii does not exist"),
        ("image,label\na.nii,x.nii\n", "label .* does not exist"),
        ("image,split\na.nii,train\n", "split 'train'.*training"),
        ("image,anomalous\na.nii,maybe\n", "anomalous 'maybe'.*yes"),
        ("image,labels\na.nii,\n", r"columns \['image', 'labels'\].*only \['label'"),
        ("label\na.nii\n", "`image` is needed"),
        ("image\n", "no rows"),
        ("image,label\na.nii\n", r"line 2\b.*\b2 fields"),
        ("image,label\na.nii,,\n", r"line 2\b.*\b2 fields"),
        ("image,label\n,a.nii\n", "line 2 .*no image"),
        ("image\na.nii\na.nii\n", "'a' .*twice"),
        ('image\n"a.nii', "cannot be read"),
    ],
)
def test_fault_of_a_table_is_named(touch: Touch, text: str, message: str) -> None:
    with pytest.raises(DatalistError, match=message):
        find_volumes(_table(touch("a.nii"), text))


def test_study_of_a_table_stays_within_its_folder(touch: Touch) -> None:
    table = _table(touch("a.nii"), "image,study\na.nii,/../p 1/x\n")
    assert find_volumes(table)[0]["study"] == "_/p_1/x"


def test_table_in_another_encoding_is_an_error(touch: Touch) -> None:
    table = touch("a.nii") / "table.csv"
    table.write_bytes("image,subject\na.nii,Jörg\n".encode("latin-1"))
    with pytest.raises(DatalistError, match="UTF-8"):
        find_volumes(table)


def test_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatalistError, match="does not exist"):
        find_volumes(tmp_path / "table.csv")


def test_a_table_of_version_01_calls_the_split_section(touch: Touch) -> None:
    folder = touch("a.nii", "b.nii")
    rows = "image,section,anomalous\na.nii,training,no\nb.nii,test,yes\n"
    assert [i["split"] for i in find_volumes(_table(folder, rows))] == ["training", "test"]
