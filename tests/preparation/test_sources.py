"""Studies of a folder: NIfTI and DICOM together, of one modality, without masks."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.data import DatalistError, open_slices
from multiad_med.preparation import StudyKind, find_nifti_and_dicom, load_studies
from multiad_med.preparation.sources import looks_like_mask
from multiad_med.readers import LoadVolume
from multiad_med.testing.brains import write_nifti
from multiad_med.utils.errors import FileError
from tests.dicom_files import OPT, ct_slices, dicom_object, multiframe, random_volume, save


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A NIfTI volume, a CT series of patient P1, and a report."""
    write_nifti(tmp_path / "p2/scan.nii.gz", np.zeros((4, 4, 4), np.int16))
    save(ct_slices(random_volume()), tmp_path / "p1")
    save([dicom_object("1.2.840.10008.5.1.4.1.1.88.11", "SR")], tmp_path / "reports")
    return tmp_path


def names(items: list[dict]) -> dict[str, str]:
    return {Path(item["image"]).name: item["subject"] for item in items}


def test_nifti_and_dicom_are_listed_together(mixed: Path) -> None:
    expected = {"scan.nii.gz": "p2", "p1": "P1"}
    assert names(load_studies(mixed)["test"]) == expected
    assert names(load_studies(mixed, kind=StudyKind.CT)["test"]) == expected
    assert set(names(find_nifti_and_dicom(mixed))) == set(expected)


def test_both_are_divided_by_subject(mixed: Path) -> None:
    splits = load_studies(mixed, kind="ct")
    assert {len(splits[name]) for name in ("training", "validation")} == {1}


def test_series_of_another_modality_are_passed_over(
    mixed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert names(load_studies(mixed, kind="mr")["test"]) == {"scan.nii.gz": "p2"}
    assert re.search(r"'P1' passed over.*\bCT\b.*\bMR\b", caplog.text)


def test_each_oct_object_is_a_volume(tmp_path: Path) -> None:
    frames = random_volume()
    objects = [multiframe(frames, sop_class=OPT, modality="OPT", orientation=None) for _ in "lr"]
    save(objects, tmp_path / "patient")
    items = load_studies(tmp_path, kind="oct")["test"]
    assert names(items) == {"im000.dcm": "P1", "im001.dcm": "P1"}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("mr", {"image_glob": "*.nothing"}, r"no file that matches '\*\.nothing'.*of \['CT'\]"),
        ("oct", {"image_glob": "*.png"}, r"no B-scans and no DICOM.*of \['CT'\]"),
        ("oct", {"label_glob": "*.png"}, r"named in a datalist\.json"),
        ("ct", {"organ_glob": "**/*.nii.gz"}, "No file in"),
    ],
)
def test_nothing_usable_is_a_named_error(
    mixed: Path, kind: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(DatalistError, match=message):
        load_studies(mixed, kind=kind, **options)


def test_a_file_that_looks_like_a_mask_is_no_image(mixed: Path) -> None:
    write_nifti(mixed / "p2/scan_seg.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(DatalistError, match=r"\b1 of 2 files.*masks"):
        load_studies(mixed)
    assert len(load_studies(mixed, organ_glob="**/*_seg.nii.gz")["test"]) == 2


VOXELS = np.arange(64, dtype=np.int16).reshape(4, 4, 4)


def images(splits: dict[str, list[dict]], split: str = "test") -> list[str]:
    return sorted(Path(item["image"]).name for item in splits[split])


def test_every_volume_of_a_folder_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    write_nifti(folder / "a.nii.gz", VOXELS)
    (folder / "B.NII.GZ").write_bytes((folder / "a.nii.gz").read_bytes())
    (folder / "empty.nii").touch()
    (folder / "gone.nii.gz").symlink_to(tmp_path / "annex")
    nib.save(nib.Nifti1Pair(VOXELS, np.eye(4)), folder / "pair.img")
    write_nifti(tmp_path / "elsewhere/linked.nii.gz", VOXELS)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    expected = ["B.NII.GZ", "a.nii.gz", "empty.nii", "gone.nii.gz", "linked.nii.gz", "pair.img"]
    assert images(load_studies(folder, kind="mr")) == expected
    assert sorted(Path(i["image"]).name for i in find_nifti_and_dicom(folder)) == expected
    by_glob = images(load_studies(folder, image_glob="**/*.nii*"))
    assert by_glob == [name for name in expected if name != "pair.img"]
    with pytest.raises(FileError, match=r"gone\.nii\.gz"):
        LoadVolume()(folder / "gone.nii.gz")


def test_what_is_no_volume_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_nifti(tmp_path / "a.nii.gz", VOXELS)
    for name in ("IM5", "b.mgz", "a.json", "a_anomaly.json"):
        (tmp_path / name).write_bytes(b"" if name == "IM5" else b"x")
    (tmp_path / "gone").symlink_to(tmp_path / "annex")
    load_studies(tmp_path)
    for fact in (
        r"IM5 passed over: .*empty",
        r"gone passed over: .*link",
        r"\b1 files\b.*: b\.mgz",
    ):
        assert re.search(fact, caplog.text)
    assert "json" not in caplog.text


def test_a_folder_that_may_not_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nifti(tmp_path / "a.nii.gz", VOXELS)
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="closed cannot be read: Permission denied"):
        load_studies(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "sub-1_dseg",
        "sub-1_space-T1w_desc-aseg_dseg",
        "sub-1_label-GM_probseg",
        "aseg",
        "aparc+aseg",
        "aparc.a2009s+aseg",
        "wmparc",
        "sub-1_T1w_tumor",
        "tumour_mask",
        "lesion",
        "sub-1_T1w_lesion",
        "sub-1_lesion_roi",
        "p1_seg",
        "segmentation-3",
        "brainmask",
        "case_labels",
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".NII.GZ", ".img"])
def test_names_of_masks(name: str, suffix: str) -> None:
    assert looks_like_mask(Path(name + suffix))


@pytest.mark.parametrize(
    "name",
    [
        "sub-1_T1w",
        "lesion01_T1w",
        "tumor-patient_t1ce",
        "BraTS2021_00000_flair",
        "sub-1_desc-unmasked_T2w",
        "tumor-free_03",
        "no_lesion_7",
        "segal_anna",
        "labelle",
        "roisin",
    ],
)
def test_names_of_images(name: str) -> None:
    assert not looks_like_mask(Path(name + ".nii.gz"))


def patients(folder: Path, places: dict[str, str | None]) -> Path:
    """A series in each place, of the PatientID given."""
    for number, (place, identifier) in enumerate(places.items()):
        elements = {"PatientID": identifier} if identifier is not None else {}
        slices = ct_slices(random_volume(), SeriesInstanceUID=f"1.2.{number}", **elements)
        for one in slices:
            if identifier is None:
                del one.PatientID
        save(slices, folder / place)
    return folder


@pytest.mark.parametrize("identifier", ["ANON", "", None])
def test_patients_of_one_identifier_in_folders_of_their_own_are_several(
    tmp_path: Path, identifier: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = patients(tmp_path, {f"p{k}/CT": identifier for k in range(3)})
    splits = load_studies(folder, kind="ct")
    assert {item["subject"] for item in splits["test"]} == {"p0", "p1", "p2"}
    assert (len(splits["training"]), len(splits["validation"])) == (2, 1)
    assert re.search(r"\b3 sub-folders\b.*subject", caplog.text)
    items = find_nifti_and_dicom(folder)
    assert {item["subject"] for item in items} == {"p0", "p1", "p2"}


def test_an_identifier_that_tells_patients_apart_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = patients(tmp_path, {"v1": "P1", "v2": "P1", "v3": "P2", "v4": ""})
    subjects = [item["subject"] for item in load_studies(folder, kind="ct")["test"]]
    assert sorted(subjects) == ["P1", "P1", "P2", "v4"]
    assert re.search(r"'P1'.*\b2 sub-folders \(v1, v2\)", caplog.text)


def test_patients_whose_identifiers_differ_in_any_sign_differ(tmp_path: Path) -> None:
    names = ["12/34", "12_34", "Иван", "Пётр", "王", "李"]
    folder = tmp_path
    for number, name in enumerate(names):
        slices = ct_slices(
            random_volume(),
            SeriesInstanceUID=f"1.2.{number}",
            SpecificCharacterSet="ISO_IR 192",
            PatientID=name,
        )
        save(slices, folder / f"{number}")
    items = find_nifti_and_dicom(folder)
    assert {item["subject"] for item in items} == set(names)
    assert len({item["study"] for item in items}) == len(names)
    # Folders of NIfTI likewise.
    for name in names[1:]:
        write_nifti(tmp_path / "nifti" / name / "t1.nii.gz", VOXELS)
    items = find_nifti_and_dicom(tmp_path / "nifti")
    assert {item["subject"] for item in items} == set(names[1:])
    assert len({item["study"] for item in items}) == len(names) - 1


def test_one_subject_only_is_said_when_it_is_to_be_trained_on(tmp_path: Path) -> None:
    patients(tmp_path, {"p0/a": "P1", "p0/b": "P1"})
    splits = load_studies(tmp_path, kind="ct")
    assert len(splits["test"]) == 2
    with pytest.raises(ValueError, match=r"one subject.*two subjects"):
        open_slices(tmp_path, split="training", data=splits["training"], transform=dict)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.img", "B.NII.GZ", "im.dcm"])
def test_one_file_is_one_study_for_inference(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    splits = load_studies(tmp_path / name, kind="mr")
    assert [len(items) for items in splits.values()] == [0, 0, 1]
    assert splits["test"][0]["image"] == str(tmp_path / name)


def test_a_table_is_no_source_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image\n")
    with pytest.raises(DatalistError, match=r"t\.csv\b.*recipe volumes"):
        load_studies(tmp_path / "t.csv")
