"""BraTS: every year's naming, its known quirks, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import MrSequence, find_brats
from multiad_med.testing.layouts import BRATS_AFFINE, BRATS_NAMES, make_brats

SHAPE = (16, 16, 8)
Touch = Callable[..., Path]


@pytest.mark.parametrize("year", BRATS_NAMES)
def test_every_year_is_read(tmp_path: Path, rng: np.random.Generator, year: str) -> None:
    suffix = ".nii" if year == "2020" else ".nii.gz"
    make_brats(tmp_path / "release", rng=rng, year=year, studies=3, shape=SHAPE, suffix=suffix)
    items = find_brats(tmp_path)
    assert len(items) == len({item["study"] for item in items}) == 3
    for item in items:
        assert Path(item["image"]).is_absolute()
        assert ("t2f" if year == "2023" else "flair") in Path(item["image"]).name
        assert "seg" in Path(item["label"]).name
        assert item["anomalous"] is True
        assert "split" not in item
        # Where the release tells grades apart by folders, half of its studies are of each.
        assert (
            item.get("grade") == ({"HGG", "LGG"} & set(Path(item["image"]).parts) or {None}).pop()
        )
    assert any("grade" in item for item in items) == (year in ("2018", "2019"))


def test_built_volumes_have_the_published_geometry(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    make_brats(tmp_path, rng=rng, studies=1, shape=(24, 24, 12))
    (item,) = find_brats(tmp_path, sequences=["t1ce"])
    image, label = nib.load(item["image"]), nib.load(item["label"])
    assert np.array_equal(image.affine, BRATS_AFFINE)
    assert image.get_data_dtype() == np.int16
    values = np.asarray(label.dataobj)
    assert set(np.unique(values)) == {0, 1, 2, 4}
    slices = values.any(axis=(0, 1))
    assert slices.any()
    assert not slices.all()


def test_several_sequences_are_channels_in_the_order_asked_for(touch: Touch) -> None:
    folder = touch(*(f"BraTS2021_00000/BraTS2021_00000_{s}.nii.gz" for s in MrSequence))
    (item,) = find_brats(folder, sequences=["t2", "flair", "t1gd"])
    assert [Path(p).name.split("_")[2] for p in item["image"]] == [
        "t2.nii.gz",
        "flair.nii.gz",
        "t1ce.nii.gz",
    ]
    assert "label" not in item


@pytest.mark.parametrize(
    ("alias", "name"), [("t1n", "t1"), ("T1C", "t1ce"), ("t2w", "t2"), ("t2f", "flair")]
)
def test_names_of_2023_mean_the_same_sequences(alias: str, name: str) -> None:
    assert MrSequence.parse(alias) == name


def test_unknown_sequence_names_the_known_ones(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"'dwi'.*'t1ce'"):
        find_brats(touch("a"), sequences=["dwi"])
    with pytest.raises(DatalistError, match="No MR sequence"):
        find_brats(touch("a"), sequences=[])


def test_time_points_share_their_subject(touch: Touch) -> None:
    folder = touch(
        "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii.gz",
        "BraTS-GLI-00001-001/BraTS-GLI-00001-001-t2f.nii.gz",
        "HGG/BraTS19_2013_10_1/BraTS19_2013_10_1_flair.nii.gz",
        "BraTS20_Training_010/BraTS20_Training_010_flair.nii",
        "BraTS-GoAT-00003/BraTS-GoAT-00003-t2f.nii.gz",
    )
    assert {item["study"]: item["subject"] for item in find_brats(folder)} == {
        "BraTS-GLI-00001-000": "BraTS-GLI-00001",
        "BraTS-GLI-00001-001": "BraTS-GLI-00001",
        "BraTS19_2013_10_1": "BraTS19_2013_10",
        "BraTS20_Training_010": "BraTS20_Training_010",
        "BraTS-GoAT-00003": "BraTS-GoAT-00003",
    }


def test_oddly_named_mask_of_training_355_is_found(touch: Touch) -> None:
    study = "BraTS20_Training_355"
    folder = touch(f"{study}/{study}_flair.nii", f"{study}/W39_1998.09.19_Segm.nii")
    assert Path(find_brats(folder)[0]["label"]).name == "W39_1998.09.19_Segm.nii"


def test_hidden_files_of_an_archive_are_no_studies(touch: Touch) -> None:
    name = "BraTS2021_00000/{}BraTS2021_00000_flair.nii.gz"
    folder = touch(name.format(""), name.format("._"), f"__MACOSX/{name.format('')}")
    assert len(find_brats(folder)) == 1


def test_linked_folders_are_followed_once(touch: Touch) -> None:
    folder = touch("real/BraTS2021_00000/BraTS2021_00000_flair.nii.gz")
    (folder / "view").mkdir()
    (folder / "view/data").symlink_to(folder / "real")
    (folder / "real/loop").symlink_to(folder / "real")
    assert len(find_brats(folder / "view")) == 1


def test_missing_sequence_names_the_study(touch: Touch) -> None:
    folder = touch(
        "BraTS2021_00000/BraTS2021_00000_flair.nii.gz",
        "BraTS2021_00002/BraTS2021_00002_t1.nii.gz",
    )
    with pytest.raises(DatalistError, match=r"1 of 2 .*BraTS2021_00002 \(has t1\)"):
        find_brats(folder)


def test_mask_missing_from_some_studies_of_a_release_is_told(
    touch: Touch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = touch(
        "BraTS2021_00000/BraTS2021_00000_flair.nii.gz",
        "BraTS2021_00000/BraTS2021_00000_seg.nii.gz",
        "BraTS2021_00002/BraTS2021_00002_flair.nii.gz",
    )
    items = find_brats(folder)
    assert ["label" in item for item in items] == [True, False]
    assert all(item["anomalous"] for item in items)
    assert re.search(r"\b1 of 2\b.*no segmentation", caplog.text)
    assert "BraTS2021_00002" in caplog.text


def test_training_and_validation_release_can_lie_side_by_side(touch: Touch) -> None:
    folder = touch(
        "Training/BraTS20_Training_001/BraTS20_Training_001_flair.nii",
        "Training/BraTS20_Training_001/BraTS20_Training_001_seg.nii",
        "Validation/BraTS20_Validation_001/BraTS20_Validation_001_flair.nii",
    )
    assert ["label" in item for item in find_brats(folder)] == [True, False]


@pytest.mark.parametrize("copy", ["copy/{0}/{0}_flair.nii.gz", "{0}/{0}_flair.nii"])
def test_study_found_twice_is_an_error(touch: Touch, copy: str) -> None:
    study = "BraTS2021_00000"
    with pytest.raises(DatalistError, match=study):
        find_brats(touch(f"{study}/{study}_flair.nii.gz", copy.format(study)))


def test_other_folders_are_told_from_brats(touch: Touch) -> None:
    with pytest.raises(DatalistError, match=r"no BraTS files.*recipe 'lits'"):
        find_brats(touch("volume-0.nii"))
    with pytest.raises(DatalistError, match="does not exist"):
        find_brats(touch("a") / "b")
    with pytest.raises(DatalistError, match="is a file"):
        find_brats(touch("a") / "a")


def test_real_study_of_2023(real_data: Path) -> None:
    (item,) = find_brats(
        real_data / "brain" / "BraTS-GLI-00001-000", sequences=["t1n", "t1c", "t2w", "t2f"]
    )
    assert all(Path(path).is_file() for path in item["image"])
    assert item["subject"] == "BraTS-GLI-00001"
    assert "label" not in item  # its masks have names of their own


def test_real_volumes_of_2013_have_no_brats_names(real_data: Path) -> None:
    with pytest.raises(DatalistError, match="recipe 'volumes'"):
        find_brats(real_data / "brain" / "brats2013")
