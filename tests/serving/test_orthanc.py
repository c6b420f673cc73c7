"""The DICOMweb source with an Orthanc, where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGLSLossless

from multiad_med.data import StudyError
from multiad_med.serving import FoundStudy, PassedOverError
from tests.dicom_files import compressed, ct_slices, dicom_object, random_volume, save
from tests.serving.dicomweb import STUDY, mr_series, source
from tests.serving.pacs import needs_orthanc

pytest.importorskip("dicomweb_client", reason="needs the extra pacs")


@needs_orthanc
class TestOrthanc:
    """Against a real server."""

    def send(self, url: str, folder: Path, datasets: list[Dataset]) -> None:
        source(url, folder).store(sorted(save(datasets, folder / "sent").iterdir()))

    def test_a_series_comes_and_goes_as_it_is(self, orthanc: str, tmp_path: Path) -> None:
        series = compressed(mr_series("1.2.11"), JPEGLSLossless)
        self.send(orthanc, tmp_path, series)
        self.send(orthanc, tmp_path / "again", series)
        made = source(orthanc, tmp_path, filters={"SeriesInstanceUID": "1.2.11"})
        study = made.find().studies[0]
        assert study == FoundStudy("1.2.11", "4", STUDY)
        fetched = made.fetch(study)
        assert fetched.image == str(tmp_path / "spool/1.2.11")
        assert sorted(path.name for path in fetched.files) == sorted(
            f"{dataset.SOPInstanceUID}.dcm" for dataset in series
        )
        by_uid = {str(dataset.SOPInstanceUID): dataset for dataset in series}
        for path in fetched.files:
            dataset = dcmread(path)
            assert dataset == by_uid[dataset.SOPInstanceUID]
            assert dataset.file_meta.TransferSyntaxUID == JPEGLSLossless
        made.release(study)
        assert list((tmp_path / "spool").iterdir()) == []

    def test_late_instances_make_another_version(self, orthanc: str, tmp_path: Path) -> None:
        series = mr_series("1.2.12")
        made = source(orthanc, tmp_path, filters={"SeriesInstanceUID": "1.2.12"})
        versions = []
        for part in (series[:3], series[3:]):
            self.send(orthanc, tmp_path / str(len(part)), part)
            versions += [study.version for study in made.find().studies]
        assert versions == ["3", "4"]

    def test_other_modalities_are_not_found_unless_asked_for(
        self, orthanc: str, tmp_path: Path
    ) -> None:
        self.send(orthanc, tmp_path, [*ct_slices(random_volume(), SeriesInstanceUID="1.2.13")])
        assert "1.2.13" not in {s.key for s in source(orthanc, tmp_path).find().studies}
        ct = source(orthanc, tmp_path, filters={"Modality": "CT"})
        assert "1.2.13" in {s.key for s in ct.find().studies}

    def test_a_localiser_is_passed_over(self, orthanc: str, tmp_path: Path) -> None:
        kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        self.send(orthanc, tmp_path, mr_series("1.2.14", ImageType=kind))
        with pytest.raises(PassedOverError, match="a localiser"):
            source(orthanc, tmp_path).fetch(FoundStudy("1.2.14", "4", STUDY))

    def test_a_series_that_is_gone_is_an_error_of_the_study(
        self, orthanc: str, tmp_path: Path
    ) -> None:
        with pytest.raises(StudyError, match=r"series 1.2.99: HTTP status 404"):
            source(orthanc, tmp_path).fetch(FoundStudy("1.2.99", "4", STUDY))

    @pytest.mark.slow
    def test_objects_that_orthanc_drops_silently_are_an_error(
        self, orthanc: str, tmp_path: Path
    ) -> None:
        folder = save([dicom_object(StudyInstanceUID="")], tmp_path / "results")
        with pytest.raises(StudyError, match=r"\b1 of 1 results"):
            source(orthanc, tmp_path).store(list(folder.iterdir()))
