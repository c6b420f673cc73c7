"""DICOM results lie where the map lies, belong to the source's patient, and are all there or none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEG2000Lossless, generate_uid

from multiad_med.dicom.write.results import DicomKind, Segments
from multiad_med.inference.severity import severity_levels
from multiad_med.testing.brains import write_nifti
from tests.dicom.studies import (
    OBLIQUE,
    ORIENTATIONS,
    PATIENT,
    SAGITTAL,
    Study,
    make_study,
    study_of,
)
from tests.dicom_files import (
    ENHANCED_CT,
    ENHANCED_MR,
    compressed,
    ct_slices,
    multiframe,
    random_volume,
    save,
)

hd = pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")


IMAGES = [DicomKind.SEG, DicomKind.PARAMETRIC_MAP]


def world(header: Dataset, row: int, column: int) -> np.ndarray:
    """Place of a pixel's centre in mm (LPS), by PS3.3 C.7.6.2.1.1."""
    cosines = np.asarray(header.ImageOrientationPatient, float)
    rows, columns = (float(x) for x in header.PixelSpacing)
    start = np.asarray(header.ImagePositionPatient, float)
    return start + cosines[:3] * columns * column + cosines[3:] * rows * row


def frame_places(image: Dataset) -> list[Dataset]:
    """What :func:`world` needs of each frame."""
    shared = image.SharedFunctionalGroupsSequence[0]
    places = []
    for group in image.PerFrameFunctionalGroupsSequence:
        place = Dataset()
        place.ImagePositionPatient = group.PlanePositionSequence[0].ImagePositionPatient
        orientation = shared.PlaneOrientationSequence[0]
        place.ImageOrientationPatient = orientation.ImageOrientationPatient
        place.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
        places.append(place)
    return places


def as_nifti(volume: Any) -> nib.Nifti1Image:
    """A volume of highdicom (LPS) as NIfTI (RAS+)."""
    return nib.Nifti1Image(volume.array, np.diag([-1, -1, 1, 1]) @ volume.affine)


def read_back(path: Path, study: Study) -> nib.Nifti1Image:
    """A segmentation or map, by highdicom, on the whole grid of its source."""
    if dcmread(path, specific_tags=["Modality"]).Modality == "SEG":
        volume = hd.seg.segread(path).get_volume(combine_segments=True)
    else:
        volume = hd.imread(path).get_volume()
    if study.series.is_dir():
        source = hd.get_volume_from_series(study.headers)
    else:
        source = hd.imread(study.series).get_volume()
    return as_nifti(volume.match_geometry(source.with_array(np.zeros(source.shape))))


def assert_same_image(got: nib.Nifti1Image, wanted: nib.Nifti1Image, atol: float = 0) -> None:
    got, wanted = nib.as_closest_canonical(got), nib.as_closest_canonical(wanted)
    np.testing.assert_allclose(got.affine, wanted.affine, atol=1e-4)
    np.testing.assert_allclose(
        np.asarray(got.dataobj), np.asarray(wanted.dataobj), atol=atol, rtol=0
    )


def labels_of(study: Study) -> nib.Nifti1Image:
    image = study.anomaly_map
    return nib.Nifti1Image(severity_levels(np.asarray(image.dataobj)), image.affine)


def enhanced(folder: Path, sop_class: str = ENHANCED_CT, modality: str = "CT") -> Study:
    """A multi-frame object whose frames are in no order."""
    stored = random_volume(shape=(5, 12, 10))
    cosines = np.array(OBLIQUE)
    normal = np.cross(cosines[:3], cosines[3:])
    heights = [15.0, 0.0, 20.0, 5.0, 10.0]
    dataset = multiframe(
        stored,
        sop_class=sop_class,
        modality=modality,
        orientation=OBLIQUE,
        positions=[[round(x, 6) for x in h * normal] for h in heights],
        thickness=4.0,
    )
    for keyword, value in PATIENT.items():
        setattr(dataset, keyword, value)
    return study_of(save([dataset], folder) / "im000.dcm")


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_a_marked_voxel_is_at_its_place_in_every_kind(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    slices = ct_slices(random_volume(shape=(5, 12, 10)), orientation=orientation, **PATIENT)
    for dataset in slices:
        dataset.WindowCenter, dataset.WindowWidth = 1000, 4000
    place = world(slices[3], row=7, column=2)
    # The volume is indexed by column, row and slice along the normal, in which order they are made.
    values = np.zeros((10, 12, 5), np.float32)
    values[2, 7, 3] = 0.9375
    study = study_of(save(slices, tmp_path / "series", seed=1), values)
    files = study.write(tmp_path / "out")

    for kind in IMAGES:
        image = dcmread(files[kind][0])
        assert image.FrameOfReferenceUID == "1.2.3.9"
        pixels = image.pixel_array.reshape(-1, image.Rows, image.Columns)
        frame, row, column = np.unravel_index(int(pixels.argmax()), pixels.shape)
        np.testing.assert_allclose(world(frame_places(image)[frame], row, column), place, atol=1e-4)
        derived = image.PerFrameFunctionalGroupsSequence[frame].DerivationImageSequence[0]
        reference = derived.SourceImageSequence[0].ReferencedSOPInstanceUID
        assert reference == slices[3].SOPInstanceUID

    by_source = {
        overlay.SourceImageSequence[0].ReferencedSOPInstanceUID: overlay
        for overlay in map(dcmread, files[DicomKind.OVERLAY])
    }
    assert set(by_source) == {dataset.SOPInstanceUID for dataset in slices}
    coloured = {
        uid: np.argwhere(np.ptp(overlay.pixel_array, axis=-1) > 0).tolist()
        for uid, overlay in by_source.items()
    }
    assert {uid: places for uid, places in coloured.items() if places} == {
        slices[3].SOPInstanceUID: [[7, 2]]
    }

    report = hd.sr.srread(files[DicomKind.REPORT][0])
    (found,) = report.content.get_planar_roi_measurement_groups()
    assert found.roi.value.tolist() == [[2.5, 7.5]]
    region = found.roi.ContentSequence[0].ReferencedSOPSequence[0]
    assert region.ReferencedSOPInstanceUID == slices[3].SOPInstanceUID


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_read_by_highdicom_they_equal_our_nifti(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    study = make_study(tmp_path, orientation=orientation)
    files = study.write(tmp_path / "out", *IMAGES)
    seg, pm = (read_back(files[kind][0], study) for kind in IMAGES)
    assert_same_image(seg, labels_of(study))
    assert_same_image(pm, study.anomaly_map, atol=1e-7)
    assert len(np.unique(np.asarray(seg.dataobj))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("sop_class", "modality"), [(ENHANCED_CT, "CT"), (ENHANCED_MR, "MR")])
def test_results_of_a_multi_frame_object_refer_to_its_frames(
    tmp_path: Path, sop_class: str, modality: str
) -> None:
    study = enhanced(tmp_path / "series", sop_class, modality)
    source = study.headers[0]
    files = study.write(tmp_path / "out")
    for kind, wanted in zip(IMAGES, (labels_of(study), study.anomaly_map), strict=True):
        path = files[kind][0]
        assert_same_image(read_back(path, study), wanted, atol=1e-7)
        image = dcmread(path)
        for group in image.PerFrameFunctionalGroupsSequence:
            derived = group.DerivationImageSequence[0].SourceImageSequence[0]
            assert derived.ReferencedSOPInstanceUID == source.SOPInstanceUID
            frame = source.PerFrameFunctionalGroupsSequence[derived.ReferencedFrameNumber - 1]
            assert (
                frame.PlanePositionSequence[0].ImagePositionPatient
                == group.PlanePositionSequence[0].ImagePositionPatient
            )
    numbers = [
        dcmread(path).SourceImageSequence[0].ReferencedFrameNumber
        for path in files[DicomKind.OVERLAY]
    ]
    assert numbers == [2, 4, 5, 1, 3]  # by height


def test_groups_that_only_single_frames_have_are_understood(tmp_path: Path) -> None:
    study = enhanced(tmp_path / "series", ENHANCED_MR, "MR")
    dataset = study.headers[0]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            group[keyword] = shared[keyword]
    dataset.SharedFunctionalGroupsSequence = Items([Dataset()])
    dataset.save_as(study.series)
    study = study_of(study.series)
    path = study.write(tmp_path / "out", DicomKind.PARAMETRIC_MAP)[DicomKind.PARAMETRIC_MAP][0]
    got = as_nifti(hd.imread(path).get_volume())
    assert_same_image(got, study.anomaly_map, atol=1e-7)


def test_slices_whose_directions_differ_in_the_last_digits_are_one_series(tmp_path: Path) -> None:
    slices = ct_slices(random_volume(shape=(4, 6, 8)), orientation=OBLIQUE, **PATIENT)
    slices[2].ImageOrientationPatient = [x + 1e-5 for x in OBLIQUE]
    study = study_of(save(slices, tmp_path / "series"))
    files = study.write(tmp_path / "out", *IMAGES)
    assert_same_image(
        as_nifti(hd.imread(files[DicomKind.PARAMETRIC_MAP][0]).get_volume()),
        study.anomaly_map,
        atol=1e-7,
    )


def test_a_single_slice_has_results(tmp_path: Path) -> None:
    study = make_study(tmp_path, shape=(1, 12, 10), values=np.full((10, 12, 1), 0.7, np.float32))
    files = study.write(tmp_path / "out")
    assert {kind: len(paths) for kind, paths in files.items()} == dict.fromkeys(DicomKind, 1)
    measures = (
        dcmread(files[DicomKind.SEG][0]).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    )
    assert measures[0].SliceThickness == 5


def test_the_distance_of_slices_is_the_true_one_whatever_the_header_says(tmp_path: Path) -> None:
    study = make_study(tmp_path, SpacingBetweenSlices=2.0, SliceThickness=None)
    seg = study.read(tmp_path / "out", DicomKind.SEG)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (5, 5)


def test_a_map_whose_axes_come_in_another_order_is_placed_all_the_same(tmp_path: Path) -> None:
    study = make_study(tmp_path, orientation=SAGITTAL)
    wanted = study.anomaly_map
    other = nib.as_closest_canonical(wanted)
    assert other.shape != wanted.shape
    path = write_nifti(tmp_path / "turned.nii.gz", np.asarray(other.dataobj), other.affine)
    files = study.write(tmp_path / "out", DicomKind.PARAMETRIC_MAP, anomaly_map=path)
    assert_same_image(read_back(files[DicomKind.PARAMETRIC_MAP][0], study), wanted, atol=1e-7)


def test_one_binary_segment_is_all_that_reaches_the_threshold(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    files = study.write(tmp_path / "out", DicomKind.SEG, segments=Segments.BINARY)
    wanted = np.asarray(labels_of(study).dataobj) > 0
    got = read_back(files[DicomKind.SEG][0], study)
    assert_same_image(got, nib.Nifti1Image(wanted.astype(np.uint8), study.anomaly_map.affine))


def test_severity_levels_follow_the_maps_threshold(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.scores["thresholds"] = {"map": 0.8, "volume_score": 0.6}
    path = study.write(tmp_path / "out", DicomKind.SEG)[DicomKind.SEG][0]
    seg = hd.seg.segread(path).get_volume(combine_segments=True)
    assert (seg.array > 0).sum() == (np.asarray(study.anomaly_map.dataobj) >= 0.8).sum()


def test_where_nothing_reaches_the_threshold_there_is_no_segmentation(tmp_path: Path) -> None:
    values = np.full((10, 12, 5), 0.25, np.float32)
    study = make_study(tmp_path, values=values)
    study.scores.update(volume_score=0.25, volume_flagged=False)
    files = study.write(tmp_path / "out")
    assert files[DicomKind.SEG] == []
    assert not (tmp_path / "out" / "seg.dcm").exists()
    report = hd.sr.srread(files[DicomKind.REPORT][0])
    assert not report.content.get_planar_roi_measurement_groups()
    assert study.write(tmp_path / "alone", DicomKind.SEG) == {DicomKind.SEG: []}
    assert list((tmp_path / "alone").iterdir()) == []


def test_compressed_slices_have_results(tmp_path: Path) -> None:
    slices = ct_slices(random_volume(shape=(4, 32, 32)), **PATIENT)
    plain = study_of(save(slices, tmp_path / "plain"))
    packed = study_of(save(compressed(slices, JPEG2000Lossless), tmp_path / "packed"))
    overlays = [
        np.stack([dcmread(path).pixel_array for path in paths])
        for paths in (
            study.write(tmp_path / name, DicomKind.OVERLAY)[DicomKind.OVERLAY]
            for name, study in (("a", plain), ("b", packed))
        )
    ]
    np.testing.assert_array_equal(*overlays)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(DicomKind))
@pytest.mark.parametrize("source", ["slices", "slices of a head", "multi-frame"])
def test_dciodvfy_finds_no_error(tmp_path: Path, kind: DicomKind, source: str) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian's dicom3tools)")
    if source == "multi-frame":
        study = enhanced(tmp_path / "series", ENHANCED_MR, "MR")
    else:
        part = {"BodyPartExamined": "HEAD"} if "head" in source else {}
        study = make_study(tmp_path, StudyInstanceUID=generate_uid(), **part)
    paths = study.write(tmp_path / "out", kind)[kind]
    assert paths
    for path in paths:
        result = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        told = (result.stdout + result.stderr).splitlines()
        assert not [line for line in told if line.startswith("Error")]
        assert told  # it names the object's kind


def test_dcmqi_reads_the_segments_and_the_map(tmp_path: Path) -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    programs = [shutil.which(p, path=places) for p in ("segimage2itkimage", "paramap2itkimage")]
    if None in programs:
        pytest.skip("dcmqi is not installed")
    study = make_study(tmp_path, orientation=OBLIQUE)
    files = study.write(tmp_path / "out", *IMAGES)
    for program, kind in zip(programs, IMAGES, strict=True):
        folder = tmp_path / kind
        folder.mkdir()
        subprocess.run(
            [program, "-t", "nii", "--inputDICOM", files[kind][0], "--outputDirectory", folder],
            capture_output=True,
            check=True,
        )
    assert_same_image(nib.load(tmp_path / "pm/pmap.nii.gz"), study.anomaly_map, atol=1e-7)
    levels = [nib.load(tmp_path / f"seg/{number}.nii.gz") for number in (1, 2, 3)]
    label = labels_of(study)
    # The first and the last slice are empty, and not in the segmentation.
    wanted = np.asarray(label.dataobj)[..., 1:-1]
    affine = label.affine @ [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    for number, level in enumerate(levels, 1):
        assert_same_image(
            level, nib.Nifti1Image(((wanted == number) * number).astype(np.uint8), affine)
        )


@pytest.mark.slow
def test_real_ct_in_jpeg_2000(real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "ct" / "example_ct_dicom").iterdir())[::4]
    headers = [dcmread(path) for path in files]
    study_uid, series_uid = generate_uid(), generate_uid()
    for header in headers:  # as published it has none
        header.StudyInstanceUID, header.SeriesInstanceUID = study_uid, series_uid
    study = study_of(save(headers, tmp_path / "series"))
    out = study.write(tmp_path / "out")
    assert_same_image(read_back(out[DicomKind.SEG][0], with_uids(study)), labels_of(study))
    assert len(out[DicomKind.OVERLAY]) == len(files)
    references = dcmread(out[DicomKind.SEG][0]).SourceImageSequence
    assert {reference.ReferencedSOPInstanceUID for reference in references} == {
        header.file_meta.MediaStorageSOPInstanceUID for header in headers
    }


def with_uids(study: Study) -> Study:
    """The series with the instances' UIDs, which the real one has in its files' headers only."""
    for path in study.series.iterdir():
        dataset = dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.save_as(path)
    return study
