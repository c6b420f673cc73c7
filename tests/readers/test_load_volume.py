"""One reader for each form of file, whose refusal is final."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from multiad_med.data import StudyError, study_errors
from multiad_med.readers import LoadVolume, LoadVolumed
from multiad_med.utils import FileError
from tests.dicom_files import ct_slices, random_volume, save
from tests.readers.test_nifti import nifti, voxels, write


@pytest.mark.parametrize("name", ["x.txt", "x", "x.bin", "x.tar.gz"])
def test_unknown_forms_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(2000))
    with pytest.raises(ValueError, match=f"{name}: not a volume"):
        LoadVolume()(tmp_path / name)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.dcm", "v.npy", "folder"])
def test_absent_files_are_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match=f"{name} does not exist"):
        LoadVolume()(tmp_path / name)


def test_an_absent_second_sequence_is_told(tmp_path: Path) -> None:
    first = write(tmp_path / "a.nii.gz", nifti())
    for name in ("b.nii.gz", "b.nii"):
        with pytest.raises(FileError, match=name):
            LoadVolume()([first, tmp_path / name])


def test_a_refused_series_is_not_read_by_another_reader(tmp_path: Path) -> None:
    slices = ct_slices(random_volume())
    folder = save([*slices[:1], *slices[2:]], tmp_path / "gap")  # one is missing
    with pytest.raises(ValueError, match="gap"):
        LoadVolume()(folder)
    whole = LoadVolume()(save(slices, tmp_path / "whole"))
    assert whole.shape == (1, 8, 6, 4)


def test_dicom_without_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    folder = save(ct_slices(random_volume(shape=(1, 6, 8))), tmp_path, suffix="")
    assert LoadVolume()(folder / "im000").shape == (1, 8, 6, 1)


def test_numpy_arrays_are_volumes_and_pickles_are_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", voxels("float64"))
    volume = LoadVolume()(tmp_path / "v.npy")
    assert volume.dtype == torch.float32
    np.testing.assert_array_equal(volume[0], voxels("float64").astype(np.float32))
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        LoadVolume()(tmp_path / "p.npy")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_metaimage_and_nrrd_have_the_affine_of_the_same_nifti(tmp_path: Path, suffix: str) -> None:
    turned = np.array([[0, 3.0, 0, -5], [-2, 0, 0, 7], [0, 0, 4, 9], [0, 0, 0, 1]])
    sitk = pytest.importorskip("SimpleITK")
    nifti_path = write(tmp_path / "v.nii", nifti(affine=turned))
    sitk.WriteImage(sitk.ReadImage(str(nifti_path)), str(tmp_path / f"v{suffix}"))
    expected, volume = LoadVolume()(nifti_path), LoadVolume()(tmp_path / f"v{suffix}")
    assert torch.equal(torch.as_tensor(volume), torch.as_tensor(expected))
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)


def test_one_file_for_two_keys_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write(tmp_path / "image.nii.gz", nifti())
    mask = write(tmp_path / "mask.nii.gz", nifti("uint8"))
    load = LoadVolumed(["image", "organ", "label"])
    read: list[object] = []
    reading = load.load

    def counted(name: Any) -> torch.Tensor:
        read.append(name)
        return reading(name)

    monkeypatch.setattr(load, "load", counted)
    data = load({"image": str(image), "organ": str(mask), "label": str(mask)})
    assert read == [str(image), str(mask)]
    assert torch.equal(data["organ"], data["label"])
    np.testing.assert_array_equal(data["image"][0], voxels())
    load({"image": [str(image), str(image)], "organ": str(mask), "label": str(mask)})
    assert len(read) == 4  # nothing is kept from one study to the next


def test_absent_keys_are_passed_over_only_where_allowed(tmp_path: Path) -> None:
    item = {"image": str(write(tmp_path / "v.nii", nifti()))}
    assert set(LoadVolumed(["image", "label"], allow_missing_keys=True)(item)) == {"image"}
    with pytest.raises(KeyError, match="label"):
        LoadVolumed(["image", "label"])(item)


def test_a_study_is_refused_by_the_name_of_its_damaged_sequence(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.nii.gz", nifti()), write(tmp_path / "b.nii.gz", nifti())
    second.write_bytes(second.read_bytes()[:-100])
    item: dict[Hashable, Any] = {"image": [str(first), str(second)]}
    load = Compose([Compose([LoadVolumed("image")])])  # MONAI wraps the error at each level
    with pytest.raises(StudyError, match=r"b\.nii\.gz: "), study_errors(item):
        load(item)
