"""Values of DICOM slices: rescaled, padded, in HU, and decompressed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from multiad_med.dicom.read import pixels as dicom_pixels
from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.readers import LoadVolume
from tests.dicom.reading import load, read
from tests.dicom_files import compressed, ct_slices, multiframe, random_volume, save


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
