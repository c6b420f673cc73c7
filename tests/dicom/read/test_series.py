"""Series found in messy folders, and what is passed over."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImage

from multiad_med.dicom.read import series as dicom_series
from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.reader import DicomSeriesReader
from multiad_med.dicom.read.series import SeriesFinder, SeriesSearch, find_series
from multiad_med.readers.archives import unpack
from tests.dicom_files import (
    SECONDARY_CAPTURE,
    STRUCTURED_REPORT,
    ct_slices,
    dicom_object,
    random_volume,
    save,
)

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
DICOMDIR = "1.2.840.10008.1.3.10"


def messy_export(folder: Path) -> Path:
    """Two patients of two series each, a localiser, results, a screenshot, copies and junk."""
    for patient in (1, 2):
        for number in (1, 2):
            slices = ct_slices(
                random_volume(10 * patient + number),
                PatientID=f"P{patient}",
                StudyInstanceUID=f"1.{patient}",
                SeriesInstanceUID=f"1.{patient}.{number}",
                SeriesNumber=number,
                SeriesDescription=f"series {number}",
            )
            # The first patient's series share one folder, the second's have one each.
            place = folder / (f"p{patient}" if patient == 1 else f"p{patient}/DICOM/S{number}")
            save(slices, place, seed=patient, suffix=("", ".IMA")[number - 1])
    localiser = ct_slices(
        random_volume(0, (1, 5, 5)),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        SeriesInstanceUID="1.1.9",
    )
    screen = ct_slices(random_volume(0, (1, 5, 5)), ImagePositionPatient=None)[0]
    screen.SOPClassUID = SECONDARY_CAPTURE
    segmentation = ct_slices(random_volume(0, (1, 5, 5)), Modality="SEG")[0]
    segmentation.SOPClassUID = SEGMENTATION
    index = dicom_object(DICOMDIR, "", SOPClassUID=None, SeriesInstanceUID=None)
    save(localiser, folder / "p1", suffix=".loc")
    save([screen], folder / "p1", suffix=".screen")
    save([dicom_object(STRUCTURED_REPORT, "SR")], folder / "p1", suffix=".sr")
    save([segmentation], folder / "p1", suffix=".seg")
    save([index], folder, suffix=".dicomdir")
    shutil.copy(folder / "p2/DICOM/S1/im000", folder / "copied")
    (folder / "p2/notes.txt").write_text("fasting")
    (folder / "p2/thumbnail.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 500)
    (folder / "empty").touch()
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "p2/DICOM/S1/im000", folder / ".hidden/im000")
    return folder


def assert_messy_series_are_found(folder: Path) -> SeriesSearch:
    found = find_series(folder)
    assert [(s.patient_id, s.number, s.uid, len(s.files)) for s in found.series] == [
        ("P1", 1, "1.1.1", 4),
        ("P1", 2, "1.1.2", 4),
        ("P2", 1, "1.2.1", 4),
        ("P2", 2, "1.2.2", 4),
    ]
    for series in found.series:
        volume = LoadImage(reader=DicomSeriesReader())(series.image)
        stored = random_volume(10 * int(series.patient_id[1]) + int(series.number or 0))
        np.testing.assert_array_equal(volume.numpy(), stored.transpose(2, 1, 0) - 1024.0)
    return found


def test_series_of_a_messy_folder_are_found_and_read(tmp_path: Path) -> None:
    found = assert_messy_series_are_found(messy_export(tmp_path))
    assert {(s.study_uid, s.description, s.modality) for s in found.series} == {
        (f"1.{patient}", f"series {number}", "CT") for patient in (1, 2) for number in (1, 2)
    }


def test_series_of_a_zipped_messy_folder_are_found_and_read(tmp_path: Path) -> None:
    messy_export(tmp_path / "export")
    archive = shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "export")
    assert_messy_series_are_found(unpack(archive, tmp_path / "unpacked"))


def test_everything_passed_over_has_a_reason(tmp_path: Path) -> None:
    skipped = {
        path.relative_to(tmp_path).as_posix(): reason
        for path, reason in find_series(messy_export(tmp_path)).skipped
    }
    expected = {
        "p2/DICOM/S1/im000": f"copy of {tmp_path / 'copied'}",
        "empty": "empty",
        "im000.dicomdir": "not an image.*unknown",
        "p1/im000.loc": "localiser",
        "p1/im000.screen": r"without a position.*\bCT\b",
        "p1/im000.seg": "segmentation",
        "p1/im000.sr": r"not an image.*\bSR\b",
        "p2/notes.txt": "not a DICOM",
        "p2/thumbnail.jpg": "not a DICOM",
    }
    assert skipped.keys() == expected.keys()
    for name, reason in expected.items():
        assert re.search(reason, skipped[name]), name


def test_image_is_the_folder_if_the_series_fills_it_and_else_its_files(tmp_path: Path) -> None:
    images = {s.uid: s.image for s in find_series(messy_export(tmp_path)).series}
    assert images["1.2.2"] == str(tmp_path / "p2/DICOM/S2")
    assert images["1.1.1"] == [str(tmp_path / f"p1/im{i:03d}") for i in range(4)]


def test_a_copy_elsewhere_leaves_the_folder_whole_if_it_comes_later(tmp_path: Path) -> None:
    folder = save(ct_slices(random_volume()), tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    found = find_series(tmp_path)
    assert [s.image for s in found.series] == [str(folder)]
    assert len(found.skipped) == 4


def test_a_damaged_slice_never_shrinks_a_series_silently(tmp_path: Path) -> None:
    save(ct_slices(random_volume()), tmp_path)
    path = tmp_path / "im003.dcm"
    path.write_bytes(path.read_bytes()[:400])
    found = find_series(tmp_path)
    assert [skipped for skipped, _ in found.skipped] == [path]
    assert "truncated or damaged" in found.skipped[0][1]
    with pytest.raises(DicomSeriesError, match=r"im003\.dcm"):
        LoadImage(reader=DicomSeriesReader())(found.series[0].image)


def test_files_without_series_uid_are_kept_apart_by_their_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(ct_slices(random_volume(), SeriesInstanceUID="", SeriesNumber=None), tmp_path / name)
    found = find_series(tmp_path)
    assert [s.image for s in found.series] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert [s.number for s in found.series] == [None, None]


def test_an_empty_folder_holds_nothing_and_an_absent_one_is_refused(tmp_path: Path) -> None:
    assert find_series(tmp_path) == SeriesSearch([], [])
    with pytest.raises(DicomSeriesError, match="no such folder"):
        find_series(tmp_path / "absent")


def test_a_folder_that_is_looked_at_again_reads_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(ct_slices(random_volume()), tmp_path / "a")
    read = []
    original = dicom_series.read_header
    monkeypatch.setattr(
        dicom_series, "read_header", lambda path: read.append(path.name) or original(path)
    )
    finder = SeriesFinder(tmp_path)
    assert finder.find() == finder.find() == find_series(tmp_path)
    assert len(read) == 2 * 4  # the finder's first look, and find_series
    read.clear()
    (folder / "im000.dcm").touch()
    (folder / "im001.dcm").unlink()
    (folder / "late.dcm").write_bytes(b"")
    assert len(finder.find().series[0].files) == 3
    assert read == ["im000.dcm"]  # an empty file is none
