"""What DICOM results tell about patient, study, maker, and findings."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from multiad_med.cli import app
from multiad_med.dicom.read.series import find_series
from multiad_med.dicom.write.report import MOST_FINDINGS
from multiad_med.dicom.write.results import DicomKind, Segments
from multiad_med.inference.severity import SEVERITY_COLOURS, SeverityLevel
from tests.dicom.studies import OBLIQUE, PATIENT, SAGITTAL, make_study

hd = pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")

SHARED = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
]


def spots(*places: tuple[int, int, int], value: float = 0.75) -> np.ndarray:
    """A map (10, 12, 5) of single voxels."""
    values = np.zeros((10, 12, 5), np.float32)
    for index, place in enumerate(places):
        values[place] = value - index / 64
    return values


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(DicomKind))
def test_patient_and_study_are_the_sources_and_the_series_is_new(
    tmp_path: Path, kind: DicomKind
) -> None:
    study = make_study(tmp_path, SeriesNumber=7, Manufacturer="Scanner Ltd")
    source = study.headers[0]
    result = study.read(tmp_path / "out", kind)
    for keyword in SHARED:
        assert str(result[keyword].value) == str(source[keyword].value), keyword
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert result.SeriesNumber == 701 + list(DicomKind).index(kind)
    assert result.SeriesDescription.startswith("Anomaly ")
    assert result.Manufacturer == "The Multi-AD Med authors"
    assert list(result.SoftwareVersions) == ["multiad-med 0.1.0", "monai 1.6.1"]
    assert result.DeviceSerialNumber == "ab" * 32
    if kind in (DicomKind.SEG, DicomKind.PARAMETRIC_MAP):
        assert result.ContentCreatorName == "Multi-AD Med^"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "charset"),
    [("Yamada^Tarou=山田^太郎", ["", "ISO 2022 IR 87"]), ("Łukasz^Żak", "ISO_IR 101"), ("", None)],
)
def test_names_of_any_script_are_kept(
    tmp_path: Path, name: str, charset: str | list[str] | None
) -> None:
    study = make_study(tmp_path, PatientName=name, SpecificCharacterSet=charset or "ISO_IR 6")
    written = study.write(tmp_path / "out")
    assert set(written) == set(DicomKind)
    for paths in written.values():
        assert str(dcmread(paths[0]).PatientName) == name


def test_no_warning_tells_the_patients_name(tmp_path: Path) -> None:
    study = make_study(tmp_path, PatientName="Mustermann")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        study.write(tmp_path / "out")
    assert not [warning for warning in told if "Mustermann" in str(warning.message)]


def test_a_source_of_few_attributes_is_enough(tmp_path: Path) -> None:
    gone = dict.fromkeys(set(PATIENT) - {"FrameOfReferenceUID"})
    study = make_study(
        tmp_path, **{k: "" for k in gone if k != "SpecificCharacterSet"}, SeriesNumber=None
    )
    for path in study.series.iterdir():
        dataset = dcmread(path)
        for keyword in gone:
            if keyword in dataset:
                del dataset[keyword]
        dataset.PatientSex = "U"
        dataset.save_as(path)
    del study.scores["image_sha256"]
    del study.scores["model_sha256"]
    written = study.write(tmp_path / "out")
    assert set(written) == set(DicomKind)
    for kind, paths in written.items():
        result = dcmread(paths[0])
        assert (str(result.PatientName), result.PatientSex) == ("", "")
        assert result.SeriesNumber == 9901 + list(DicomKind).index(kind)
        assert result.DeviceSerialNumber == "unknown"


def test_segments_are_coded_and_tell_their_algorithm(tmp_path: Path) -> None:
    seg = make_study(tmp_path).read(tmp_path / "out", DicomKind.SEG)
    assert seg.SegmentationType == "BINARY"
    assert [item.SegmentLabel for item in seg.SegmentSequence] == [
        "Anomaly, low",
        "Anomaly, moderate",
        "Anomaly, high",
    ]
    grades = []
    for item in seg.SegmentSequence:
        (kind,) = item.SegmentedPropertyTypeCodeSequence
        (category,) = item.SegmentedPropertyCategoryCodeSequence
        assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("99MULTIAD", "unusual-region")
        assert (category.CodingSchemeDesignator, category.CodeValue) == ("SCT", "309825002")
        grades.append(kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning)
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "Multi-AD Med"
        assert algorithm.AlgorithmVersion == "multiad-med 0.1.0"
        assert "ab" * 32 in algorithm.AlgorithmParameters
    assert grades == ["Low", "Moderate", "High"]
    colours = [tuple(item.RecommendedDisplayCIELabValue) for item in seg.SegmentSequence]
    assert colours == [
        hd.color.CIELabColor.from_rgb(*SEVERITY_COLOURS[level]).value for level in SeverityLevel
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(DicomKind))
def test_no_result_calls_what_is_unusual_a_lesion_or_a_disease(
    tmp_path: Path, kind: DicomKind
) -> None:
    told = str(make_study(tmp_path).read(tmp_path / "out", kind)).lower()
    assert "anomaly" in told
    for claim in ("lesion", "abnormal", "patholog", "disease", "tumor", "tumour", "52988006"):
        assert claim not in told


def test_the_report_codes_a_region_as_unusual_and_as_a_place(tmp_path: Path) -> None:
    report = make_study(tmp_path).read(tmp_path / "out", DicomKind.REPORT)
    measured = hd.sr.ComprehensiveSR.from_dataset(report).content
    (group, *_) = measured.get_planar_roi_measurement_groups()
    assert (group.finding_type.scheme_designator, group.finding_type.value) == (
        "99MULTIAD",
        "unusual-region",
    )
    assert group.finding_category.value == "309825002"


def test_the_map_is_float32_without_units_in_a_window_from_0_to_1(tmp_path: Path) -> None:
    pm = make_study(tmp_path).read(tmp_path / "out", DicomKind.PARAMETRIC_MAP)
    (shared,) = pm.SharedFunctionalGroupsSequence
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    (window,) = shared.FrameVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (0.5, 1)
    assert window.VOILUTFunction == "LINEAR_EXACT"
    assert "FloatPixelData" in pm


def test_the_same_result_has_the_same_uids_and_another_has_others(tmp_path: Path) -> None:
    study = make_study(tmp_path / "a")

    def uids(name: str, **options: object) -> set[str]:
        files = study.write(tmp_path / name, **options)
        datasets = [dcmread(path) for paths in files.values() for path in paths]
        found = {d.SOPInstanceUID for d in datasets} | {d.SeriesInstanceUID for d in datasets}
        assert len(found) == len(datasets) + len(DicomKind)
        return found

    first = uids("first")
    study.scores["image"] = "another/folder"
    assert uids("second") == first
    binary = uids("binary", segments=Segments.BINARY)
    assert len(first - binary) == 2  # instance and series of the segmentation
    study.scores["model_sha256"] = "cd" * 32
    assert not uids("third") & first


def report_values(group: object) -> dict[str, float]:
    return {m.name.meaning: float(m.value) for m in group.get_measurements()}


def decision_of(group: object) -> str:
    told = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    return told["Decision by the threshold"]


def test_the_report_tells_score_threshold_decision_and_findings(tmp_path: Path) -> None:
    values = spots((2, 7, 3), (9, 0, 0))
    values[3, 8, 4] = 0.6  # touches the first in a corner
    study = make_study(tmp_path, values=values, orientation=OBLIQUE)
    path = study.write(tmp_path / "out", DicomKind.REPORT)[DicomKind.REPORT][0]
    report = hd.sr.srread(path)
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")

    (whole,) = report.content.get_image_measurement_groups()
    assert report_values(whole) == {
        "Anomaly score of the study": 0.875,
        "P-value of the score among held-out normal studies": 0.03125,
        "Threshold of the anomaly score": 0.625,
        "Number of regions above the threshold of the map": 2,
    }
    assert decision_of(whole) == "The score reaches the threshold"

    first, second = report.content.get_planar_roi_measurement_groups()
    # A voxel is 0.5 x 0.75 x 5 mm.
    for group, peak, volume in ((first, 0.75, 3.75), (second, 0.734375, 1.875)):
        told = report_values(group)
        assert told == {"Calibrated anomaly": peak, "Volume": pytest.approx(volume)}
    assert first.roi.value.tolist() == [[2.5, 7.5]]
    assert second.roi.value.tolist() == [[9.5, 0.5]]
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    referenced = {item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence}
    assert referenced == {header.SOPInstanceUID for header in study.headers}


def test_a_score_below_the_threshold_is_told_so(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.scores.update(volume_score=0.5, volume_flagged=False, verdict="normal")
    path = study.write(tmp_path / "out", DicomKind.REPORT)[DicomKind.REPORT][0]
    (whole,) = hd.sr.srread(path).content.get_image_measurement_groups()
    assert decision_of(whole) == "The score is below the threshold"


def test_where_there_is_no_verdict_the_report_says_so(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.scores.update(volume_flagged=None, verdict="no verdict: 3 normal volumes")
    study.scores["thresholds"] = {"map": 0.5, "slice_score": 0.5, "volume_score": None}
    path = study.write(tmp_path / "out", DicomKind.REPORT)[DicomKind.REPORT][0]
    (whole,) = hd.sr.srread(path).content.get_image_measurement_groups()
    assert decision_of(whole) == "No verdict: too few held-out normal studies"
    told = report_values(whole)
    assert told["P-value of the score among held-out normal studies"] == 0.03125
    assert "Threshold of the anomaly score" not in told


def test_the_report_lists_the_highest_findings_and_counts_all(tmp_path: Path) -> None:
    values = np.zeros((10, 12, 5), np.float32)
    values[::2, ::2, ::2] = np.linspace(0.5, 0.9, 90).reshape(5, 6, 3)
    study = make_study(tmp_path, values=values)
    path = study.write(tmp_path / "out", DicomKind.REPORT)[DicomKind.REPORT][0]
    content = hd.sr.srread(path).content
    (whole,) = content.get_image_measurement_groups()
    assert report_values(whole)["Number of regions above the threshold of the map"] == 90
    told = [
        report_values(group)["Calibrated anomaly"]
        for group in content.get_planar_roi_measurement_groups()
    ]
    np.testing.assert_allclose(told, np.sort(np.unique(values))[::-1][:MOST_FINDINGS], rtol=1e-6)


def overlays(study: object, output: Path) -> list[Dataset]:
    return [dcmread(path) for path in study.write(output, DicomKind.OVERLAY)[DicomKind.OVERLAY]]


def test_overlays_show_the_sources_window_where_the_map_is_low(tmp_path: Path) -> None:
    study = make_study(
        tmp_path,
        values=np.zeros((10, 12, 5), np.float32),
        WindowCenter=[0, 300],
        WindowWidth=[2001, 1500],
    )
    by_uid = {header.SOPInstanceUID: header for header in study.headers}
    shown = overlays(study, tmp_path / "out")
    assert len(shown) == len(study.headers)
    for overlay in shown:
        source = by_uid[overlay.SourceImageSequence[0].ReferencedSOPInstanceUID]
        hounsfield = source.pixel_array.astype(float) - 1024
        # PS3.3 C.11.2.1.2: from centre - 0.5 - (width - 1) / 2 to centre - 0.5 + (width - 1) / 2.
        grey = ((hounsfield + 1000.5) / 2000).clip(0, 1) * 255
        for channel in range(3):
            assert np.abs(overlay.pixel_array[..., channel] - grey).max() <= 0.5 + 1e-6
        assert list(overlay.PixelSpacing) == [0.5, 0.75]
        assert (overlay.PhotometricInterpretation, overlay.ConversionType) == ("RGB", "DI")


@pytest.mark.parametrize("same", [False, True])
def test_overlays_without_a_window_show_the_series_range(tmp_path: Path, same: bool) -> None:
    study = make_study(tmp_path, values=np.zeros((10, 12, 5), np.float32))
    if same:
        for path in study.series.iterdir():
            dataset = dcmread(path)
            dataset.PixelData = bytes(len(dataset.PixelData))
            dataset.save_as(path)
        del study.scores["image_sha256"]
    grey = np.stack([overlay.pixel_array for overlay in overlays(study, tmp_path / "out")])
    assert grey.max() - grey.min() == (0 if same else 255)


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [(SAGITTAL, ["P", "F"]), (OBLIQUE, ["LHP", "HRP"])],
    ids=["sagittal", "oblique"],
)
def test_overlays_tell_the_directions_of_rows_and_columns(
    tmp_path: Path, orientation: tuple[float, ...], letters: list[str]
) -> None:
    study = make_study(tmp_path, orientation=orientation)
    assert list(overlays(study, tmp_path / "out")[0].PatientOrientation) == letters


def test_results_beside_their_series_are_no_series_of_slices(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.write(study.series / "results")
    assert [series.uid for series in find_series(tmp_path).series] == ["1.2.3.4"]


class TestCommand:
    """``multiad dicom``."""

    def run(self, *arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["dicom", *map(str, arguments)])
        return result.exit_code, result.output

    def test_writes_what_is_asked(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        scores = tmp_path / "scores.json"
        scores.write_text(json.dumps(study.scores))
        options = (study.series, study.map_path, "--scores", scores, "--output", tmp_path / "out")
        code, output = self.run(*options, "--kind", "seg", "--kind", "sr", "--segments", "binary")
        assert code == 0, output
        assert output.splitlines() == ["seg: 1 file(s)", "sr: 1 file(s)"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["seg.dcm", "sr.dcm"]
        assert len(dcmread(tmp_path / "out" / "seg.dcm").SegmentSequence) == 1

    def test_tells_errors_without_a_trace(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        scores = tmp_path / "scores.json"
        scores.write_text("{}")
        options = (study.series, study.map_path, "--scores", scores, "--output", tmp_path / "out")
        for more, told in (
            ([], "scores lack"),
            (["--kind", "rtss"], "'rtss' is not one of 'seg', 'pm', 'overlay', 'sr'"),
            (["--segments", "two"], "'two' is not one of 'levels', 'binary'"),
        ):
            code, output = self.run(*options, *more)
            assert code == 2
            assert told in output
            assert "Traceback" not in output
