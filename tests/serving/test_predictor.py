"""The predictor gives what the bundle's inference gives, study by study, with one model in memory."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from multiad_med.card import CardError
from multiad_med.data import StudyError
from multiad_med.io.dicom_results import DicomKind
from multiad_med.networks import WeightsError
from multiad_med.serving import BundlePredictor, FetchedStudy, ServingError
from multiad_med.serving.process import StudyProcessor
from tests.bundles import models
from tests.bundles.cohorts import COHORTS, FAST, write_fake_model
from tests.bundles.test_folder_inference import nifti_head
from tests.bundles.test_sources import dicom_head
from tests.dicom_files import save
from tests.serving.pacs import head_series


def predictor(model: Path, folder: Path, bundle: str | None = None) -> BundlePredictor:
    return BundlePredictor(
        model,
        bundle=bundle,
        source=folder / "in",
        output_dir=folder / "served",
        device="cpu",
        size=64,
    )


def same_results(served: Path, inferred: Path, name: str) -> None:
    """Maps to 1e-6, masks, and scores."""
    for end in ("map", "mask"):
        one, two = (
            nib.load(folder / f"{name}_anomaly_{end}.nii.gz") for folder in (served, inferred)
        )
        assert one.get_data_dtype() == two.get_data_dtype()
        np.testing.assert_allclose(one.affine, two.affine, atol=1e-6)
        np.testing.assert_allclose(one.get_fdata(), two.get_fdata(), atol=1e-6)
    scores = [json.loads((f / f"{name}_anomaly.json").read_text()) for f in (served, inferred)]
    assert scores[0]["volume_score"] > 0
    assert scores[0] == scores[1]


def test_results_are_those_of_the_bundles_inference(model: Path, tmp_path: Path) -> None:
    series = dicom_head(tmp_path / "in/pacs", "anna")
    volumes = [nifti_head(tmp_path / f"in/{n}.nii.gz", seed=n) for n in range(2)]
    models.infer("multiad_brain_mri", tmp_path / "in", model, tmp_path / "inferred")
    predict = predictor(model, tmp_path)
    results = [predict(str(image)) for image in (volumes[0], series, volumes[1])]
    for name in ("0", "pacs/anna", "1"):
        same_results(tmp_path / "served", tmp_path / "inferred", name)
    assert results[1].map == tmp_path / "served/pacs/anna_anomaly_map.nii.gz"
    assert results[1].folder == tmp_path / "served/pacs/anna_anomaly_dicom"
    assert results[0].read_scores()["image"] == str(volumes[0])

    made = results[0].map.stat().st_mtime_ns
    assert predict(str(volumes[0])).map.stat().st_mtime_ns == made  # there already
    nifti_head(volumes[0], seed=5)
    assert predict(str(volumes[0])).map.stat().st_mtime_ns != made


@pytest.mark.parametrize("bundle", ["multiad_liver_ct", "multiad_retina_oct"])
def test_other_bundles_of_volumes_are_served_too(bundle: str, tmp_path: Path) -> None:
    COHORTS[bundle](tmp_path)
    (tmp_path / "cohort/images").rename(tmp_path / "in")
    model = write_fake_model(bundle, tmp_path / "model.pt")
    region = {"region": "body"} if bundle == "multiad_liver_ct" else {}
    models.infer(bundle, tmp_path / "in", model, tmp_path / "inferred", **region)
    predict = BundlePredictor(
        model,
        source=tmp_path / "in",
        output_dir=tmp_path / "served",
        device="cpu",
        size=FAST["size"],
        **region,
    )
    predict(str(tmp_path / "in/s4.nii.gz"))
    same_results(tmp_path / "served", tmp_path / "inferred", "s4")


def test_a_bad_study_is_an_error_and_the_next_one_is_done(model: Path, tmp_path: Path) -> None:
    good = nifti_head(tmp_path / "in/good.nii.gz")
    cut = tmp_path / "in/cut.nii.gz"
    cut.write_bytes(good.read_bytes()[:500])
    missing = dicom_head(tmp_path / "in", "anna", without=5)
    predict = predictor(model, tmp_path)
    with pytest.raises(StudyError, match=r"cut.nii.gz: "):
        predict(str(cut))
    with pytest.raises(StudyError, match=r"1 slice\(s\) are missing"):
        predict(str(missing))
    assert predict(str(good)).map.is_file()
    assert sorted(p.name for p in (tmp_path / "served").iterdir()) == [
        *("good_anomaly.json", "good_anomaly_map.nii.gz", "good_anomaly_mask.nii.gz"),
    ]


def test_what_makes_the_results_is_told_apart(model: Path, tmp_path: Path) -> None:
    other = write_fake_model("multiad_brain_mri", tmp_path / "other.pt", seed=1)
    one, two = predictor(model, tmp_path).about, predictor(other, tmp_path).about
    assert one["bundle"] == two["bundle"] == "multiad_brain_mri"
    assert one["model"] != two["model"]
    assert json.loads(one["settings"])["size"] == 64


def test_what_cannot_be_served_is_named(model: Path, tmp_path: Path) -> None:
    pictures = write_fake_model("multiad_industrial", tmp_path / "pictures.pt")
    with pytest.raises(ServingError, match="bundle of pictures; volumes only"):
        predictor(pictures, tmp_path)
    with pytest.raises(CardError, match='bundle "multiad_brain_mri", asked for is "multiad_liver'):
        predictor(model, tmp_path, bundle="multiad_liver_ct")
    with pytest.raises(ServingError, match=r"no setting sizze. Did you mean size\?"):
        BundlePredictor(model, source=".", output_dir=".", sizze=64)
    with pytest.raises(WeightsError, match="There is no weights file"):
        predictor(tmp_path / "no.pt", tmp_path)


def test_dicom_results_have_the_same_uids_when_made_again_and_others_by_another_model(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    other = write_fake_model("multiad_brain_mri", tmp_path / "other.pt", seed=1)
    uids = []
    for name, weights in (("a", model), ("b", model), ("c", other)):
        series = save(head_series("1"), tmp_path / name / "in")
        process = StudyProcessor(predictor(weights, tmp_path / name), list(DicomKind))
        files = process(FetchedStudy(str(series), tuple(sorted(series.iterdir()))))
        assert len(files) == 3 + 6
        uids.append({dcmread(file).SOPInstanceUID for file in files})
        assert process(FetchedStudy(str(series), tuple(series.iterdir()))) == files
    assert uids[0] == uids[1]
    assert uids[0].isdisjoint(uids[2])


def test_nifti_gets_no_dicom_results(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    volume = nifti_head(tmp_path / "in/x.nii.gz")
    process = StudyProcessor(predictor(model, tmp_path), list(DicomKind))
    assert process(FetchedStudy(str(volume))) == []
    assert (tmp_path / "served/x_anomaly_map.nii.gz").is_file()
