"""Enhanced multi-frame objects and ophthalmic tomography."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import FileDataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.reader import DicomSeriesReader
from tests.dicom_files import (
    ENHANCED_CT,
    ENHANCED_MR,
    OPT,
    compressed,
    ct_slices,
    multiframe,
    random_volume,
    save,
)

SHUFFLED = [(-10.0, 20.0, z) for z in (40, 30, 45, 35)]
SORTED = np.argsort([z for _, _, z in SHUFFLED])


def read(dataset: FileDataset, folder: Path) -> tuple[np.ndarray, dict]:
    reader = DicomSeriesReader()
    return reader.get_data(reader.read(save([dataset], folder) / "im000.dcm"))


@pytest.mark.parametrize(
    ("sop_class", "modality"), [(ENHANCED_CT, "CT"), (ENHANCED_MR, "MR"), (OPT, "OPT")]
)
def test_frames_are_sorted_by_position(tmp_path: Path, sop_class: str, modality: str) -> None:
    stored = random_volume()
    volume, meta = read(
        multiframe(stored, sop_class=sop_class, modality=modality, positions=SHUFFLED), tmp_path
    )
    np.testing.assert_array_equal(volume, stored[SORTED].transpose(2, 1, 0) - 1024.0)
    expected = [[-0.75, 0, 0, 10], [0, -0.5, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(meta["affine"], expected)
    assert meta["in_patient"]


def test_multiframe_and_single_slices_of_one_volume_agree(tmp_path: Path) -> None:
    stored, cosines = random_volume(), (0, 1, 0, 0, 0, -1)
    slices = ct_slices(stored, orientation=cosines)
    positions = [list(dataset.ImagePositionPatient) for dataset in slices]
    many, many_meta = read(
        multiframe(stored, positions=positions, orientation=cosines), tmp_path / "m"
    )
    reader = DicomSeriesReader()
    one, one_meta = reader.get_data(reader.read(save(slices, tmp_path / "s")))
    np.testing.assert_array_equal(many, one)
    np.testing.assert_allclose(many_meta["affine"], one_meta["affine"])


def test_each_frame_has_its_own_slope(tmp_path: Path) -> None:
    stored, slopes = random_volume(), [1.0, 0.5, 2.0, 0.25]
    volume, _ = read(multiframe(stored, positions=SHUFFLED, slopes=slopes, intercept=0), tmp_path)
    expected = (stored * np.reshape(slopes, (4, 1, 1)))[SORTED]
    np.testing.assert_array_equal(volume, expected.transpose(2, 1, 0))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=str)
def test_compressed_frames_decode(tmp_path: Path, syntax: str) -> None:
    stored = random_volume(shape=(4, 32, 48))
    dataset = compressed([multiframe(stored, positions=SHUFFLED)], syntax)[0]
    volume, _ = read(dataset, tmp_path)
    np.testing.assert_array_equal(volume, stored[SORTED].transpose(2, 1, 0) - 1024.0)


def test_a_volume_split_over_several_files_is_joined(tmp_path: Path) -> None:
    stored = random_volume()
    halves = [
        multiframe(stored[part], positions=SHUFFLED[part]) for part in (slice(2), slice(2, 4))
    ]
    reader = DicomSeriesReader()
    volume, _ = reader.get_data(reader.read(save(halves, tmp_path)))
    np.testing.assert_array_equal(volume, stored[SORTED].transpose(2, 1, 0) - 1024.0)


@pytest.mark.parametrize("steps", [{"between": 0.24}, {"thickness": 0.24}])
def test_ophthalmic_scans_without_position_get_their_own_frame(
    tmp_path: Path, steps: dict[str, float]
) -> None:
    stored = random_volume()
    dataset = multiframe(
        stored, sop_class=OPT, modality="OPT", orientation=None, spacing=(0.0039, 0.0117), **steps
    )
    volume, meta = read(dataset, tmp_path)
    np.testing.assert_array_equal(volume, stored.transpose(2, 1, 0) - 1024.0)
    np.testing.assert_allclose(meta["affine"], np.diag([0.0117, 0.0039, 0.24, 1]), atol=1e-12)
    assert not meta["in_patient"]


def test_ophthalmic_scans_without_position_or_distance_are_refused(tmp_path: Path) -> None:
    dataset = multiframe(random_volume(), sop_class=OPT, modality="OPT", orientation=None)
    with pytest.raises(DicomSeriesError, match=r"SpacingBetweenSlices.*SliceThickness"):
        read(dataset, tmp_path)


def test_other_frames_without_position_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DicomSeriesError, match="frame 1: ImagePositionPatient is missing"):
        read(multiframe(random_volume(), between=5.0), tmp_path)


def test_a_position_missing_on_one_frame_is_refused(tmp_path: Path) -> None:
    dataset = multiframe(random_volume(), sop_class=OPT, modality="OPT", positions=SHUFFLED)
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    with pytest.raises(DicomSeriesError, match="frame 3: ImagePositionPatient is missing"):
        read(dataset, tmp_path)


def test_time_points_echoes_or_stacks_at_one_position_are_refused(tmp_path: Path) -> None:
    dataset = multiframe(random_volume(), positions=[*SHUFFLED[:2], *SHUFFLED[:2]])
    with pytest.raises(DicomSeriesError, match=r"time points.*echoes.*stacks"):
        read(dataset, tmp_path)


def test_frames_without_functional_groups_are_refused(tmp_path: Path) -> None:
    dataset = multiframe(random_volume(), positions=SHUFFLED)
    del dataset.PerFrameFunctionalGroupsSequence
    with pytest.raises(DicomSeriesError, match="4 frames without functional groups"):
        read(dataset, tmp_path)


def test_frames_that_are_not_all_described_are_refused(tmp_path: Path) -> None:
    dataset = multiframe(random_volume(), positions=SHUFFLED)
    del dataset.PerFrameFunctionalGroupsSequence[3]
    with pytest.raises(DicomSeriesError, match=r"NumberOfFrames.*\b4\b.*\b3 frames"):
        read(dataset, tmp_path)


def test_compressed_frames_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    dataset = compressed([multiframe(random_volume(), positions=SHUFFLED)], RLELossless)[0]
    path = save([dataset], tmp_path) / "im000.dcm"
    path.write_bytes(path.read_bytes()[:-200])
    reader = DicomSeriesReader()
    with pytest.raises(DicomSeriesError, match=r"im000\.dcm"):
        reader.get_data(reader.read(path))
