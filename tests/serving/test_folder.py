"""A watched folder: what is complete in it, what is not yet, and what is none of ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from multiad_med.data import StudyError
from multiad_med.preparation.sources import StudyKind
from multiad_med.serving import (
    FolderSource,
    PassedOver,
    ServingError,
    SourceUnavailableError,
    TryAgainError,
)
from multiad_med.serving.folder import check_outside
from tests.bundles.test_folder_inference import nifti_head
from tests.bundles.test_sources import dicom_head
from tests.dicom_files import ct_slices, dicom_object, random_volume, save


def watch(folder: Path, settle: float = 0.0) -> FolderSource:
    folder.mkdir(exist_ok=True)
    return FolderSource(folder, kind=StudyKind.MR, settle=settle)


def keys(source: FolderSource) -> list[str]:
    return sorted(study.key for study in source.find().studies)


def test_series_and_nifti_are_found_and_fetched_as_the_bundles_inference_takes_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    series = dicom_head(folder, "anna")
    nifti_head(folder / "clinic/x.nii.gz")
    source = watch(folder)
    assert keys(source) == ["1.2.3.4", "clinic/x.nii.gz"]
    found = {study.key: source.fetch(study) for study in source.find().studies}
    assert found["clinic/x.nii.gz"].image == str(folder / "clinic/x.nii.gz")
    assert found["clinic/x.nii.gz"].files == ()
    assert found["1.2.3.4"].image == str(series)
    assert len(found["1.2.3.4"].files) == 12


def test_two_series_in_one_folder_are_two_studies_of_files(tmp_path: Path) -> None:
    for uid in ("1.2.1", "1.2.2"):
        slices = ct_slices(random_volume(), SeriesInstanceUID=uid, Modality="MR")
        save(slices, tmp_path / "in" / uid)
        for file in (tmp_path / "in" / uid).iterdir():
            file.rename(tmp_path / "in" / f"{uid}-{file.name}")
    source = watch(tmp_path / "in")
    assert keys(source) == ["1.2.1", "1.2.2"]
    images = [source.fetch(study).image for study in source.find().studies]
    assert [len(image) for image in images] == [4, 4]
    assert all(isinstance(image, list) for image in images)


def test_a_series_is_complete_when_no_file_changed_for_the_settle_time(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    series = dicom_head(folder, "anna")
    for file in series.iterdir():
        os.utime(file, (0, 0))  # as copying with times kept does
    source = watch(folder, settle=1.5)
    found = source.find()
    assert (found.studies, found.unsettled) == ([], 1)
    time.sleep(1.6)
    complete = source.find()
    assert ([s.key for s in complete.studies], complete.unsettled) == (["1.2.3.4"], 0)

    (series / "late.dcm").write_bytes((series / "im000.dcm").read_bytes()[:700])  # half a slice
    found = source.find()
    assert (found.studies, found.unsettled) == ([], 2)  # the series, and what came late
    (series / "late.dcm").unlink()
    (series / "im000.dcm").touch()
    time.sleep(1.6)
    again = source.find().studies
    assert again[0].version != complete.studies[0].version


def test_what_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside"
    dicom_head(folder, "berta-maria", modality="CT")
    save(ct_slices(random_volume(), SeriesInstanceUID="1.9", Modality="MR"), outside)
    nifti_head(outside / "secret.nii.gz")
    for number, file in enumerate(sorted(outside.iterdir())):
        (folder / f"link{number}-{file.name}").symlink_to(file)
    for name in ("x_seg.nii.gz", "x_anomaly_map.nii.gz", ".x.nii.gz"):
        nifti_head(folder / name)
    (folder / "readme.txt").write_text("not an image")
    assert keys(watch(folder)) == []


def test_what_is_passed_over_is_told_by_name_and_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    series = dicom_head(folder, "anna")
    (folder / "copies").mkdir()
    (folder / "copies/again.dcm").write_bytes((series / "im000.dcm").read_bytes())
    dicom_head(folder, "berta", modality="CT")
    outside = nifti_head(tmp_path / "secret.nii.gz")
    (folder / "link.nii.gz").symlink_to(outside)
    (folder / "dead.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    for name in ("x_seg.nii.gz", "x_anomaly_map.nii.gz", "volume.nrrd"):
        nifti_head(tmp_path / "made.nii.gz").rename(folder / name)
    (folder / "readme.txt").write_text("not an image")
    (folder / "empty").touch()
    save([dicom_object("1.2.840.10008.5.1.4.1.1.88.33", "SR")], folder / "report")
    found = watch(folder).find()
    assert [study.key for study in found.studies] == ["1.2.3.4"]
    assert {study.key: what for study, what in found.passed_over} == {
        "copies/again.dcm": PassedOver.DUPLICATE,
        "1.2.3.5": PassedOver.MODALITY,
        "link.nii.gz": PassedOver.OUTSIDE,
        "dead.nii.gz": PassedOver.UNREADABLE,
        "x_seg.nii.gz": PassedOver.MASK,
        "x_anomaly_map.nii.gz": PassedOver.RESULT,
        "volume.nrrd": PassedOver.FORMAT,
        "readme.txt": PassedOver.NOT_AN_IMAGE,
        "empty": PassedOver.UNREADABLE,
        "report/im000.dcm": PassedOver.NOT_A_VOLUME,
    }


def test_a_log_that_grows_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/transfer.log").write_text("a line")
    (tmp_path / "in/x_seg.nii.gz").write_text("arrives")
    found = watch(tmp_path / "in", settle=100.0).find()
    assert (found.passed_over, found.unsettled) == ([], 1)


def test_optical_tomography_is_a_study_per_object(tmp_path: Path) -> None:
    for uid, name in (("1.5", "a"), ("1.5", "b")):
        part = ct_slices(random_volume()[:1], SeriesInstanceUID=uid, Modality="OPT")
        save(part, tmp_path / "in" / name)
    source = FolderSource(tmp_path / "in", kind=StudyKind.OCT, settle=0)
    assert keys(source) == ["a/im000.dcm", "b/im000.dcm"]


def test_what_is_gone_is_an_error_of_the_study_and_no_folder_one_of_the_source(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    nifti_head(folder / "x.nii.gz")
    source = watch(folder)
    study = source.find().studies[0]
    (folder / "x.nii.gz").unlink()
    with pytest.raises(TryAgainError, match=r"x\.nii\.gz\b.*no longer"):
        source.fetch(study)
    folder.rmdir()
    with pytest.raises(SourceUnavailableError, match="folder is not there"):
        source.find()
    with pytest.raises(ServingError, match="no such folder"):
        FolderSource(folder, kind=StudyKind.MR)


def test_results_inside_the_watched_folder_are_refused(tmp_path: Path) -> None:
    check_outside(tmp_path / "out", tmp_path / "in")
    for inside in (tmp_path / "in", tmp_path / "in/../in/out"):
        with pytest.raises(ServingError, match="watched folder"):
            check_outside(inside, tmp_path / "in")


@pytest.mark.parametrize("cut", [0, 100, 300])
def test_a_lone_damaged_file_is_a_study_that_fails_with_its_reason(
    tmp_path: Path, cut: int
) -> None:
    folder = tmp_path / "in"
    whole = (dicom_head(tmp_path, "anna") / "im000.dcm").read_bytes()
    (folder / "alone").mkdir(parents=True)
    (folder / "alone/x.dcm").write_bytes(whole[:cut])  # of the preamble, of the header
    (folder / "readme.txt").write_text("not an image")
    source = watch(folder)
    (study,) = source.find().studies
    assert study.key == "alone/x.dcm"
    with pytest.raises(StudyError, match=r"alone/x\.dcm: "):
        source.fetch(study)
    (folder / "alone/x.dcm").write_bytes(whole)  # copied again: no damage any more
    (study,) = source.find().studies
    assert source.fetch(study).files == (folder / "alone/x.dcm",)


def test_a_damaged_file_among_a_series_is_told_by_the_series_alone(tmp_path: Path) -> None:
    series = dicom_head(tmp_path / "in", "anna")
    file = series / "im003.dcm"
    file.write_bytes(file.read_bytes()[:300])
    assert keys(watch(tmp_path / "in")) == ["1.2.3.4"]


def test_suffixes_in_capitals_are_nifti_too(tmp_path: Path) -> None:
    nifti_head(tmp_path / "in/x.nii.gz").rename(tmp_path / "in/X.NII.GZ")
    assert keys(watch(tmp_path / "in")) == ["X.NII.GZ"]
