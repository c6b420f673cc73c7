"""What cannot be made a DICOM result is told by name, and leaves nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.write.results import DicomKind, DicomResultError
from multiad_med.testing.brains import write_nifti
from tests.dicom.studies import PATIENT, Study, make_study, study_of
from tests.dicom_files import ct_slices, multiframe, random_volume, save

pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")


class TestRefusals:
    """What cannot be is told by name, and leaves nothing."""

    def refused(
        self, study: Study, tmp_path: Path, match: str, error: type = DicomResultError, **given: Any
    ) -> None:
        with pytest.raises(error, match=match):
            study.write(tmp_path / "out", **given)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".partial-*"))

    def test_a_nifti_source(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        self.refused(study, tmp_path, "need the DICOM series", source=study.map_path)

    def test_a_map_on_another_grid(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        image = study.anomaly_map
        shifted = image.affine.copy()
        shifted[2, 3] += 1
        for name, values, affine in (
            ("shifted", np.asarray(image.dataobj), shifted),
            ("cropped", np.asarray(image.dataobj)[1:], image.affine),
            ("channels", np.stack([np.asarray(image.dataobj)] * 2, axis=-1), image.affine),
        ):
            path = write_nifti(tmp_path / f"{name}.nii.gz", values, affine)
            self.refused(study, tmp_path, "nothing is resampled", anomaly_map=path)

    @pytest.mark.slow
    @pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.5])
    def test_a_map_with_impossible_values(self, tmp_path: Path, value: float) -> None:
        values = np.zeros((10, 12, 5), np.float32)
        values[3, 4, 2] = value
        self.refused(make_study(tmp_path, values=values), tmp_path, r"finite.*\[0, 1\]")

    def test_scores_of_another_patient(self, tmp_path: Path) -> None:
        study = make_study(tmp_path / "a")
        other = make_study(tmp_path / "b", PatientID="P8")
        self.refused(study, tmp_path, "another patient's study", scores=other.scores)

    def test_scores_that_lack_something(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        thresholds = {"map": 0.5}
        for lacking, scores in (
            ("volume_score", {**study.scores, "thresholds": thresholds}),
            ("volume_p_value", {k: v for k, v in study.scores.items() if k != "volume_p_value"}),
        ):
            told = f"lack '{lacking}'.*inference again"
            self.refused(study, tmp_path, told, scores=scores)
        self.refused(study, tmp_path, "contradict", scores={**study.scores, "volume_flagged": None})
        self.refused(
            study, tmp_path, "must be finite", scores={**study.scores, "volume_score": np.nan}
        )
        self.refused(study, tmp_path, "lack 'volume_score'", scores={})
        self.refused(study, tmp_path, "JSON object.*got list", scores=[])

    @pytest.mark.parametrize(
        "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"]
    )
    def test_a_source_without_a_uid(self, tmp_path: Path, keyword: str) -> None:
        self.refused(make_study(tmp_path, **{keyword: ""}), tmp_path, f"{keyword} missing")

    @pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
    def test_a_source_of_two_studies_or_frames_of_reference(
        self, tmp_path: Path, keyword: str
    ) -> None:
        slices = ct_slices(random_volume(shape=(4, 6, 8)), **PATIENT)
        setattr(slices[2], keyword, "1.2.9")
        study = study_of(save(slices, tmp_path / "series"))
        self.refused(study, tmp_path, f"2 values of {keyword}")

    @pytest.mark.parametrize("kind", list(DicomKind))
    def test_a_header_that_is_not_dicoms(self, tmp_path: Path, kind: DicomKind) -> None:
        study = make_study(tmp_path)
        for path in study.series.iterdir():
            path.write_bytes(path.read_bytes().replace(b"101112", b"10:11\0"))
        scores = {k: v for k, v in study.scores.items() if k != "image_sha256"}
        match = r"\bseries: .*header.*10:11"
        self.refused(study, tmp_path, match, scores=scores, kinds={kind})

    def test_a_source_without_pixels(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        for path in study.series.iterdir():
            dataset = dcmread(path)
            del dataset.PixelData
            dataset.add_new(0x00091010, "OB", b"\0" * 400)  # as long as it was
            dataset.save_as(path)
        scores = {k: v for k, v in study.scores.items() if k != "image_sha256"}
        self.refused(study, tmp_path, "no pixel data", scores=scores)

    def test_two_series_and_missing_slices(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        files = sorted(study.series.iterdir())
        self.refused(
            study,
            tmp_path,
            "missing",
            error=DicomSeriesError,
            source=[path for path in files if dcmread(path).InstanceNumber != 3],
        )
        dataset = dcmread(files[0])
        dataset.SeriesInstanceUID = "1.9"
        dataset.save_as(files[0])
        self.refused(study, tmp_path, "2 series", error=DicomSeriesError)

    def test_several_multi_frame_objects(self, tmp_path: Path) -> None:
        halves = []
        for number in range(2):
            half = multiframe(
                random_volume(shape=(2, 6, 8)),
                positions=[(0, 0, 10.0 * number), (0, 0, 10.0 * number + 5)],
            )
            for keyword, value in PATIENT.items():
                setattr(half, keyword, value)
            halves.append(half)
        study = study_of(save(halves, tmp_path / "series"))
        self.refused(study, tmp_path, "2 multi-frame objects")

    def test_no_kind(self, tmp_path: Path) -> None:
        self.refused(make_study(tmp_path), tmp_path, "No kind", kinds=set())

    def test_a_folder_with_something_in_it(self, tmp_path: Path) -> None:
        study = make_study(tmp_path)
        (tmp_path / "out").mkdir()
        note = tmp_path / "out" / "note"
        note.write_text("mine")
        with pytest.raises(DicomResultError, match="not an empty folder"):
            study.write(tmp_path / "out")
        assert note.read_text() == "mine"

    def test_without_highdicom(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "highdicom", None)
        self.refused(make_study(tmp_path), tmp_path, r"multiad-med\[dicom\]", error=ImportError)

    def test_a_failure_in_the_middle_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(result: Any) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("multiad_med.dicom.write.results.report", fail)
        self.refused(make_study(tmp_path), tmp_path, "No space left", error=OSError)
