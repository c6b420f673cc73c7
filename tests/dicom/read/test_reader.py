"""The DICOM reader: values, metadata, and every refusal."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from monai.data import MetaTensor, list_data_collate
from monai.transforms import LoadImage, LoadImaged
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from multiad_med.dicom.read import header as dicom_header
from multiad_med.dicom.read import pixels as dicom_pixels
from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.reader import DicomSeriesReader
from multiad_med.readers import LoadVolume
from multiad_med.testing.brains import write_nifti
from multiad_med.utils.errors import FileError
from tests.dicom_files import (
    AXIAL,
    SECONDARY_CAPTURE,
    STRUCTURED_REPORT,
    compressed,
    ct_slices,
    dicom_object,
    multiframe,
    random_volume,
    save,
)


def load(path: object, reader: object = None) -> MetaTensor:
    reader = reader or DicomSeriesReader()
    return LoadImage(reader=reader, ensure_channel_first=True, image_only=True)(path)


def read(path: object, **options: object) -> tuple[np.ndarray, dict]:
    reader = DicomSeriesReader(**options)
    return reader.get_data(reader.read(path))


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


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, 0, "int16"), (2, -1000, "int16"), (0.5, -1000, "float32"), (1, 40000, "float32")],
)
def test_values_are_rescaled_and_int16_where_whole_and_fitting(
    tmp_path: Path, slope: float, intercept: float, dtype: str
) -> None:
    stored = random_volume()
    save(ct_slices(stored, slopes=slope, intercept=intercept), tmp_path)
    volume, _ = read(tmp_path)
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume, stored.transpose(2, 1, 0) * float(slope) + intercept)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    stored, slopes = random_volume(), [1.0, 0.25, 2.0, 0.3]
    save(ct_slices(stored, slopes=slopes, intercept=0, Modality="PT"), tmp_path, seed=2)
    volume, _ = read(tmp_path)
    expected = stored * np.reshape(slopes, (4, 1, 1))
    np.testing.assert_allclose(volume, expected.transpose(2, 1, 0), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_stored_types_keep_their_values(tmp_path: Path, dtype: str) -> None:
    limits = np.iinfo(dtype)
    stored = random_volume(dtype="int64") % 100
    stored[0, 0, :2] = max(limits.min, -(2**24)), min(limits.max, 2**24)
    save(ct_slices(stored.astype(dtype), intercept=0), tmp_path)
    np.testing.assert_array_equal(read(tmp_path)[0], stored.transpose(2, 1, 0))


def test_slices_without_rescaling_keep_stored_values(tmp_path: Path) -> None:
    stored = random_volume()
    save(ct_slices(stored, RescaleSlope=None, RescaleIntercept=None, Modality="MR"), tmp_path)
    np.testing.assert_array_equal(read(tmp_path)[0], stored.transpose(2, 1, 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "value", "elements"),
    [
        ("int16", -2000, {"PixelPaddingValue": -2000}),
        ("int16", -2000, {"PixelPaddingValue": 63536}),  # stated without its sign
        ("uint16", 63536, {"PixelPaddingValue": 63536}),
        ("uint16", 63536, {"PixelPaddingValue": 63500, "PixelPaddingRangeLimit": 64000}),
        ("uint16", 63536, {"PixelPaddingValue": 64000, "PixelPaddingRangeLimit": 63500}),
        ("int16", 4095, {"PixelPaddingValue": 4090, "PixelPaddingRangeLimit": 5000}),
        ("uint16", 0, {"PixelPaddingValue": 0}),
    ],
)
def test_padding_gets_the_lowest_value_of_the_other_pixels(
    tmp_path: Path, dtype: str, value: int, elements: dict[str, int]
) -> None:
    stored = random_volume(dtype=dtype)
    stored[:] = np.clip(stored, 10, 3000)
    stored[1, 3, 4] = 5
    stored[:, 0, 0] = value
    stored[2] = value  # a slice of nothing else
    slices = ct_slices(stored, intercept=-1000)
    for dataset in slices:
        for keyword, number in elements.items():
            dataset.add_new(keyword, "US" if number >= 0 else "SS", number)
    save(slices, tmp_path)
    volume = read(tmp_path)[0].transpose(2, 1, 0)
    expected = stored.astype(int) - 1000
    expected[:, 0, 0], expected[2] = -995, -995
    np.testing.assert_array_equal(volume, expected)
    assert volume.dtype == np.int16


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"RescaleSlope": None, "RescaleIntercept": None}, "are missing"),
        ({"RescaleSlope": None}, "are missing"),
        ({"RescaleIntercept": None}, "are missing"),
        ({"RescaleType": "US"}, "RescaleType is US"),
        ({"RescaleType": "HU_MOD"}, "RescaleType is HU_MOD"),
        ({"RescaleType": "Z_EFF"}, "RescaleType is Z_EFF"),
    ],
)
def test_a_ct_that_does_not_declare_hu_is_refused_or_accepted_by_option(
    tmp_path: Path, elements: dict[str, str | None], message: str
) -> None:
    save(ct_slices(random_volume(), **elements), tmp_path)
    with pytest.raises(DicomSeriesError, match=rf"{message}.*\b4 of 4\b.*assume_hounsfield"):
        LoadVolume()(tmp_path)
    assert LoadVolume(assume_hounsfield=True)(tmp_path).shape == (1, 8, 6, 4)


def test_one_slice_without_rescaling_among_others_is_named(tmp_path: Path) -> None:
    slices = ct_slices(random_volume())
    del slices[2].RescaleSlope, slices[2].RescaleIntercept
    save(slices, tmp_path)
    with pytest.raises(DicomSeriesError, match=r"im002\.dcm.*missing.*\b1 of 4 slices"):
        LoadVolume()(tmp_path)


@pytest.mark.parametrize("unit", ["HU", "hu", "", None])
def test_hu_is_what_a_ct_declares_with_or_without_its_name(
    tmp_path: Path, unit: str | None
) -> None:
    stored = random_volume()
    slices = ct_slices(stored)
    for dataset in slices:
        if unit is not None:
            dataset.RescaleType = unit
    volume = LoadVolume()(save(slices, tmp_path))
    np.testing.assert_array_equal(volume[0], stored.transpose(2, 1, 0) - 1024.0)


def test_an_enhanced_ct_that_does_not_declare_hu_is_refused(tmp_path: Path) -> None:
    stored = random_volume()
    places = [[0, 0, 3.0 * k] for k in range(4)]
    for name, change in {"unit": {"RescaleType": "US"}, "none": None}.items():
        dataset = multiframe(stored, positions=places)
        group = dataset.PerFrameFunctionalGroupsSequence[3]
        if change is None:
            del group.PixelValueTransformationSequence
        else:
            group.PixelValueTransformationSequence[0].RescaleType = "US"
        folder = save([dataset], tmp_path / name)
        with pytest.raises(DicomSeriesError, match=r"\b1 of 4 slices"):
            LoadVolume()(folder)
        assert LoadVolume(assume_hounsfield=True)(folder).shape == (1, 8, 6, 4)


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=str)
def test_compressed_slices_decode_to_the_same_values(
    tmp_path: Path, syntax: str, dtype: str
) -> None:
    stored = random_volume(shape=(3, 32, 48), dtype=dtype)
    if dtype == "int16":
        stored -= 2000
    save(compressed(ct_slices(stored, intercept=0), syntax), tmp_path)
    np.testing.assert_array_equal(read(tmp_path)[0], stored.transpose(2, 1, 0))


def test_twelve_stored_bits_decode_in_jpeg_2000(tmp_path: Path) -> None:
    stored = random_volume(shape=(2, 32, 48))
    slices = ct_slices(stored, BitsStored=12, HighBit=11)
    save(compressed(slices, JPEG2000Lossless), tmp_path)
    np.testing.assert_array_equal(read(tmp_path)[0], stored.transpose(2, 1, 0) - 1024.0)


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


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (JPEGLosslessSV1, r"JPEG Lossless.*4\.70.*pip install 'multiad-med\[gdcm\]'"),
        (JPEGLSLossless, r"JPEG-LS.*4\.80.*`pip install pyjpegls`"),
        (JPEG2000Lossless, r"JPEG 2000.*4\.90.*`pip install pylibjpeg pylibjpeg-openjpeg`"),
    ],
)
def test_undecodable_transfer_syntax_names_it_and_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID, message: str
) -> None:
    decoder = SimpleNamespace(is_available=False, UID=syntax)
    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda uid: decoder)
    slices = compressed(ct_slices(random_volume()), RLELossless)
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(DicomSeriesError, match=message):
        load(save(slices, tmp_path))


def test_video_is_no_pixel_data(tmp_path: Path) -> None:
    slices = compressed(ct_slices(random_volume()), RLELossless)
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    with pytest.raises(DicomSeriesError, match=r"transfer syntax 1\.2\.840\.10008\.1\.2\.4\.100\b"):
        load(save(slices, tmp_path))


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
