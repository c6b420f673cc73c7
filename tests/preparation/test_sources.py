"""Studies of a folder: NIfTI and DICOM together, of one modality, without masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multiad_med.data import DatalistError
from multiad_med.preparation import StudyKind, find_nifti_and_dicom, load_studies
from tests.conftest import write_nifti
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
    sections = load_studies(mixed, kind="ct")
    assert {len(sections[name]) for name in ("training", "validation")} == {1}


def test_series_of_another_modality_are_passed_over(
    mixed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert names(load_studies(mixed, kind="mr")["test"]) == {"scan.nii.gz": "p2"}
    assert "'P1' passed over: its modality is CT, not MR" in caplog.text


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
    with pytest.raises(DatalistError, match=r"1 of 2 files .* look like masks"):
        load_studies(mixed)
    assert len(load_studies(mixed, organ_glob="**/*_seg.nii.gz")["test"]) == 2
