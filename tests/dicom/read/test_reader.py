"""The DICOM reader: values, metadata, and every refusal."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from monai.data import list_data_collate
from monai.transforms import LoadImaged
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import DeflatedExplicitVRLittleEndian

from multiad_med.dicom.read import header as dicom_header
from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.reader import DicomSeriesReader
from multiad_med.testing.brains import write_nifti
from multiad_med.utils.errors import FileError
from tests.dicom.reading import load, read
from tests.dicom_files import (
    AXIAL,
    SECONDARY_CAPTURE,
    STRUCTURED_REPORT,
    ct_slices,
    dicom_object,
    random_volume,
    save,
)


def test_load_image_gives_a_channel_first_meta_tensor(tmp_path: Path) -> None:
    volume = random_volume()
    image = load(save(ct_slices(volume), tmp_path / "ct", seed=0))
    assert image.shape == (1, 8, 6, 4)
    np.testing.assert_array_equal(image[0].numpy(), volume.transpose(2, 1, 0) - 1024.0)
    assert image.meta["filename_or_obj"] == str(tmp_path / "ct")
    assert image.meta["space"] == "RAS"
    assert image.meta["modality"] == "CT"
    np.testing.assert_array_equal(image.meta["spatial_shape"], [8, 6, 4])
    np.testing.assert_array_equal(image.meta["original_affine"], image.affine)


def test_images_can_be_collated_and_the_reader_pickled(tmp_path: Path) -> None:
    folder = save(ct_slices(random_volume()), tmp_path)
    reader = pickle.loads(pickle.dumps(DicomSeriesReader(series_uid="1.2.3.4")))
    loader = LoadImaged("image", reader=reader, ensure_channel_first=True)
    assert list_data_collate([loader({"image": str(folder)})] * 2)["image"].shape == (2, 1, 8, 6, 4)


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_list_of_files_reads_as_their_folder_does(tmp_path: Path, as_type: type) -> None:
    folder = save(ct_slices(random_volume()), tmp_path, seed=3)
    whole, meta = read(as_type(folder))
    listed, listed_meta = read([as_type(path) for path in sorted(folder.iterdir())])
    np.testing.assert_array_equal(listed, whole)
    np.testing.assert_array_equal(listed_meta["affine"], meta["affine"])
    assert listed_meta["filename_or_obj"] == str(folder)


@pytest.mark.parametrize("name", ["IM5", "IM5.dcm", "1.2.3.5", "last.IMA"])
def test_an_empty_file_among_the_slices_is_refused(tmp_path: Path, name: str) -> None:
    save(ct_slices(random_volume()), tmp_path, suffix="")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DicomSeriesError, match=rf"\b{name}: .*empty"):
        read(tmp_path)


def test_a_dead_link_among_the_slices_is_refused(tmp_path: Path) -> None:
    save(ct_slices(random_volume()), tmp_path)
    (tmp_path / "im004.dcm").symlink_to(tmp_path / "annex")
    with pytest.raises(DicomSeriesError, match=r"im004\.dcm: .*link"):
        read(tmp_path)


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(ct_slices(random_volume()), tmp_path)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(dicom_header, "read_file_meta_info", refuse)
    with pytest.raises(FileError, match=r"im000\.dcm.*Permission denied"):
        read(tmp_path)


def test_notes_beside_the_slices_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(ct_slices(random_volume()), tmp_path)
    (tmp_path / "README").write_text("notes")
    assert read(tmp_path)[0].shape == (8, 6, 4)
    assert re.search(r"\b1 files.*not DICOM.*\bREADME\b", caplog.text)


def test_single_slice_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    image = load(save(ct_slices(random_volume(shape=(1, 6, 8))), tmp_path) / "im000.dcm")
    assert image.shape == (1, 8, 6, 1)
    assert image.affine[2, 2] == 5


def test_reports_junk_and_hidden_files_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    save(ct_slices(random_volume()), tmp_path)
    report = dicom_object(STRUCTURED_REPORT, "SR", SeriesInstanceUID="9.9")
    screen = ct_slices(random_volume(shape=(1, 3, 3)), ImagePositionPatient=None)[0]
    screen.SOPClassUID, screen.SeriesInstanceUID = SECONDARY_CAPTURE, "9.8"
    save([report, screen], tmp_path, suffix=".x")
    (tmp_path / "notes.txt").write_text("fasting")
    (tmp_path / "._im000.dcm").write_bytes(b"\0" * 40)
    assert load(tmp_path).shape == (1, 8, 6, 4)


def test_nifti_is_left_to_the_other_readers(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.float32))
    assert load(path).shape == (1, 3, 4, 5)


def test_content_tells_whether_a_path_is_dicom(tmp_path: Path) -> None:
    save(ct_slices(random_volume()), tmp_path, suffix="")
    (tmp_path / "notes.dcm").write_text("x" * 200)
    reader = DicomSeriesReader()
    assert reader.verify_suffix(tmp_path)
    assert reader.verify_suffix([tmp_path / "im000", str(tmp_path / "im001")])
    assert not reader.verify_suffix(tmp_path / "notes.dcm")
    assert not reader.verify_suffix(tmp_path / "absent")


def two_series(folder: Path) -> Path:
    save(ct_slices(random_volume(), SeriesDescription="thin"), folder, suffix=".a")
    other = ct_slices(random_volume(1), SeriesInstanceUID="1.2.3.5", SeriesDescription="thick")
    return save(other, folder, suffix=".b")


def test_several_series_are_listed_with_the_way_to_choose(tmp_path: Path) -> None:
    with pytest.raises(DicomSeriesError, match="2 series") as caught:
        load(two_series(tmp_path))
    for part in ("1.2.3.4 (4 files, thin)", "1.2.3.5 (4 files, thick)", "series_uid"):
        assert part in str(caught.value)


def test_series_uid_chooses_one_of_several(tmp_path: Path) -> None:
    volume, meta = read(two_series(tmp_path), series_uid="1.2.3.5")
    np.testing.assert_array_equal(volume, random_volume(1).transpose(2, 1, 0) - 1024.0)
    assert meta["series_uid"] == "1.2.3.5"
    with pytest.raises(DicomSeriesError, match=r"no series 7\.7.*1\.2\.3\.4"):
        read(tmp_path, series_uid="7.7")


def lut() -> Items:
    return Items([Dataset()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("element", "value", "message"),
    [
        ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], "a localiser"),
        ("ImagePositionPatient", None, "ImagePositionPatient is missing"),
        ("ImageOrientationPatient", None, "ImageOrientationPatient is missing"),
        ("PixelSpacing", None, "PixelSpacing is missing"),
        ("PixelSpacing", [0.5, 0.8], "PixelSpacing .* differs"),
        ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], "ImageOrientationPatient .* differs"),
        ("ImagePositionPatient", [-10, 20, 35], "duplicated"),
        ("ImagePositionPatient", [-10, 20, 60], r"\b3 slice.*missing"),
        ("ImagePositionPatient", [-10, 20, 43], "unevenly spaced"),
        ("ImagePositionPatient", [-10, 22, 45], "gantry tilt"),
        ("PatientID", "P2", r"2 patients: \['P1', 'P2'\]"),
        ("SeriesInstanceUID", "5.5", "2 series"),
        ("Rows", 5, "Rows and Columns .* differs"),
        ("RescaleSlope", 0, "RescaleSlope"),
        ("PhotometricInterpretation", "MONOCHROME1", "MONOCHROME1"),
        ("SamplesPerPixel", 3, "SamplesPerPixel 3"),
        ("BitsAllocated", 12, "BitsAllocated must be"),
        ("ModalityLUTSequence", lut(), "ModalityLUTSequence"),
        ("NumberOfFrames", 1000, r"the file has \d+ bytes"),
    ],
)
def test_what_is_wrong_with_one_slice_is_named_and_no_other_reader_is_tried(
    tmp_path: Path, element: str, value: object, message: str
) -> None:
    slices = ct_slices(random_volume())
    if value is None:
        delattr(slices[3], element)
    else:
        setattr(slices[3], element, value)
    with pytest.raises(DicomSeriesError, match=message):
        load(save(slices, tmp_path))


def test_a_missing_file_leaves_a_named_gap(tmp_path: Path) -> None:
    save(ct_slices(random_volume(shape=(6, 4, 4))), tmp_path)
    (tmp_path / "im003.dcm").unlink()
    with pytest.raises(DicomSeriesError, match=r"\b1 slice.*missing.*im002"):
        load(tmp_path)


def test_deflated_files_are_refused_before_they_are_inflated(tmp_path: Path) -> None:
    slices = ct_slices(random_volume())
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(DicomSeriesError, match="Deflated"):
        load(save(slices, tmp_path))


@pytest.mark.parametrize("keep", [0, 100, 140, 400, -1])
def test_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    save(ct_slices(random_volume()), tmp_path)
    path = tmp_path / "im003.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DicomSeriesError, match=r"im003\.dcm"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["absent", "empty", "notes.txt", "report"])
def test_what_is_no_dicom_image_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x" * 500)
    dicom_object(STRUCTURED_REPORT, "SR").save_as(tmp_path / "report", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match=name):
        load(tmp_path / name)


def test_no_path_is_refused() -> None:
    with pytest.raises(DicomSeriesError, match="No path"):
        DicomSeriesReader().read([])


def test_senseless_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        DicomSeriesReader(tolerance=1)


def test_tolerance_admits_a_less_even_series(tmp_path: Path) -> None:
    folder = save(ct_slices(random_volume(), step=[5, 6, 5], orientation=AXIAL), tmp_path)
    with pytest.raises(DicomSeriesError, match="unevenly"):
        load(folder)
    assert load(folder, DicomSeriesReader(tolerance=0.1)).shape == (1, 8, 6, 4)
