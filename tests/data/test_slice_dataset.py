"""Slices of studies: which are kept, what they hold, and how errors name the study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, LoadImaged, Orientationd

from multiad_med.data import SliceDataset, StudyDataset, StudyError
from multiad_med.testing.brains import head, write_nifti
from multiad_med.transforms import CheckVolumed, ForegroundByIntensityd, MarkOccupiedd

TRANSFORM = Compose(
    [
        LoadImaged(
            ["image", "label"], ensure_channel_first=True, image_only=True, allow_missing_keys=True
        ),
        CheckVolumed("image"),
        Orientationd(["image", "label"], axcodes="RAS", labels=None, allow_missing_keys=True),
        ForegroundByIntensityd("image"),
        MarkOccupiedd("image"),
    ]
)


def test_slices_with_lesion_and_without_foreground_are_left_out(tmp_path: Path) -> None:
    volume = head(np.random.default_rng(0))
    areas = (volume > 0).sum(axis=(0, 1))
    lesion = np.zeros(volume.shape, np.uint8)
    lesion[20, 24, 4:6] = 1
    item = {
        "image": str(write_nifti(tmp_path / "i.nii", volume)),
        "label": str(write_nifti(tmp_path / "l.nii", lesion)),
        "subject": "jane",
    }
    dataset = SliceDataset([item], TRANSFORM, progress=False)
    expected = [z for z in range(10) if areas[z] >= 0.1 * areas.max() and z not in (4, 5)]
    assert [dataset[i]["slice"] for i in range(len(dataset))] == expected
    sample = dataset[1]
    assert sample["subject"] == "jane"
    np.testing.assert_array_equal(sample["image"][0], volume[..., expected[1]])
    assert torch.equal(sample["foreground"], sample["image"] > 0)


def test_source_orientation_does_not_change_the_slices(tmp_path: Path) -> None:
    volume = head(np.random.default_rng(0))
    flipped = volume[::-1, :, ::-1]
    affine = np.diag([-1.0, 1, -1, 1])
    affine[:3, 3] = [39, 0, 9]
    items = [
        {"image": str(write_nifti(tmp_path / "a.nii", volume))},
        {"image": str(write_nifti(tmp_path / "b.nii", flipped, affine))},
    ]
    a, b = (SliceDataset([item], TRANSFORM, progress=False) for item in items)
    assert len(a) == len(b)
    for i in range(len(a)):
        assert torch.equal(a[i]["image"], b[i]["image"])


def test_all_slices_abnormal_is_an_error(tmp_path: Path) -> None:
    volume = head(np.random.default_rng(0))
    item = {
        "image": str(write_nifti(tmp_path / "i.nii", volume)),
        "label": str(write_nifti(tmp_path / "l.nii", np.ones(volume.shape, np.uint8))),
    }
    with pytest.raises(ValueError, match="No normal, non-empty slice in 1 studies"):
        SliceDataset([item], TRANSFORM, progress=False)


def _bad_files(folder: Path) -> dict[str, Path]:
    good = write_nifti(folder / "good.nii.gz", head(np.random.default_rng(0)))
    truncated = folder / "truncated.nii.gz"
    truncated.write_bytes(good.read_bytes()[:2000])
    empty = folder / "empty.nii"
    empty.write_bytes(b"")
    text = folder / "text.nii"
    text.write_text("not an image")
    constant = write_nifti(folder / "constant.nii", np.ones((4, 4, 4), np.int16))
    return {"truncated": truncated, "empty": empty, "text": text, "constant": constant}


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "constant"])
def test_unreadable_study_is_named_with_the_reason(tmp_path: Path, kind: str) -> None:
    path = _bad_files(tmp_path)[kind]
    with pytest.raises(StudyError) as error:
        SliceDataset([{"image": str(path)}], TRANSFORM, progress=False)
    assert str(path) in str(error.value)
    assert len(str(error.value)) > len(str(path)) + 5


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere\.nii"):
        SliceDataset([{"image": str(tmp_path / "nowhere.nii")}], TRANSFORM, progress=False)


def test_bad_studies_never_stop_the_others(tmp_path: Path) -> None:
    bad = _bad_files(tmp_path)
    items = [{"image": str(p)} for p in (*bad.values(), tmp_path / "good.nii.gz")]
    dataset = StudyDataset(items, TRANSFORM)
    for _ in range(2):  # a second pass counts anew
        dataset.start()
        needed = []
        for batch in DataLoader(dataset):
            with dataset.at_work(batch) as to_do:
                needed.append(to_do)
        assert needed == [False] * 4 + [True]
        assert len(dataset.failures) == 4
        for path, failure in zip(bad.values(), dataset.failures, strict=True):
            assert str(path) in failure
