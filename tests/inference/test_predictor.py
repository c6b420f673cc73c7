"""The predictor gives what the bundle's inference gives, study by study, with one model in memory."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from multiad_med.card import CardError
from multiad_med.data import FailureKind, StudyError
from multiad_med.dicom.write.results import DicomKind
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.networks import WeightsError
from multiad_med.result import Result
from multiad_med.serving import FetchedStudy
from multiad_med.serving.process import StudyProcessor
from multiad_med.testing.cohorts import COHORTS, FAST, write_fake_model
from multiad_med.utils import InputError
from tests.bundles import models
from tests.bundles.test_folder_inference import nifti_head
from tests.bundles.test_sources import dicom_head
from tests.dicom_files import save
from tests.serving.pacs import head_series


def predictor(model: Path, bundle: str | None = None) -> StudyPredictor:
    return StudyPredictor(model, bundle=bundle, device="cpu", size=64)


def serving(predict: StudyPredictor, folder: Path) -> Callable[[Path], Result]:
    """As ``multiad serve`` calls it."""
    return lambda image: predict(str(image), source=folder / "in", output_dir=folder / "served")


def processor(predict: StudyPredictor, folder: Path) -> StudyProcessor:
    return StudyProcessor(
        predict, source=folder / "in", output_dir=folder / "served", kinds=list(DicomKind)
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
    predict = serving(predictor(model), tmp_path)
    results = [predict(image) for image in (volumes[0], series, volumes[1])]
    for name in ("0", "pacs/anna", "1"):
        same_results(tmp_path / "served", tmp_path / "inferred", name)
    assert results[1].map_file == tmp_path / "served/pacs/anna_anomaly_map.nii.gz"
    assert results[1].folder == tmp_path / "served/pacs/anna_anomaly_dicom"
    assert results[0].scores["image"] == str(volumes[0])

    made = results[0].map_file.stat().st_mtime_ns
    assert predict(volumes[0]).map_file.stat().st_mtime_ns == made  # there already
    nifti_head(volumes[0], seed=5)
    assert predict(volumes[0]).map_file.stat().st_mtime_ns != made


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["multiad_liver_ct", "multiad_retina_oct"])
def test_other_bundles_of_volumes_are_served_too(bundle: str, tmp_path: Path) -> None:
    COHORTS[bundle](tmp_path)
    (tmp_path / "cohort/images").rename(tmp_path / "in")
    model = write_fake_model(bundle, tmp_path / "model.pt")
    region = {"region": "body"} if bundle == "multiad_liver_ct" else {}
    models.infer(bundle, tmp_path / "in", model, tmp_path / "inferred", **region)
    predict = StudyPredictor(model, device="cpu", size=FAST["size"], **region)
    serving(predict, tmp_path)(tmp_path / "in/s4.nii.gz")
    same_results(tmp_path / "served", tmp_path / "inferred", "s4")


def test_a_bad_study_is_an_error_and_the_next_one_is_done(model: Path, tmp_path: Path) -> None:
    good = nifti_head(tmp_path / "in/good.nii.gz")
    cut = tmp_path / "in/cut.nii.gz"
    cut.write_bytes(good.read_bytes()[:500])
    missing = dicom_head(tmp_path / "in", "anna", without=5)
    predict = serving(predictor(model), tmp_path)
    with pytest.raises(StudyError, match=r"cut.nii.gz: ") as told:
        predict(cut)
    assert told.value.kind is FailureKind.STUDY
    with pytest.raises(StudyError, match=r"\b1 slice.*missing"):
        predict(missing)
    assert predict(good).map_file.is_file()
    assert sorted(p.name for p in (tmp_path / "served").iterdir()) == [
        *("good_anomaly.json", "good_anomaly_map.nii.gz", "good_anomaly_mask.nii.gz"),
    ]


def test_threads_share_the_network_and_nothing_else(model: Path, tmp_path: Path) -> None:
    images = [nifti_head(tmp_path / f"in/{n}.nii.gz", seed=n) for n in range(4)]
    predict = predictor(model)

    def score(image: Path, folder: str) -> float:
        result = predict(str(image), source=tmp_path / "in", output_dir=tmp_path / folder)
        return result.score

    alone = [score(image, "alone") for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(score, images, ["together"] * 4))
    assert together == pytest.approx(alone, abs=1e-6)
    assert not predict.network.training


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), FailureKind.SYSTEM),
        (MemoryError(), FailureKind.SYSTEM),
        (TypeError("a bug"), FailureKind.PROGRAM),
    ],
    ids=repr,
)
def test_a_failure_tells_what_is_to_blame(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: FailureKind,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    image = nifti_head(tmp_path / "in/x.nii.gz")
    predict = serving(predictor(model), tmp_path)
    for place in (
        "multiad_med.readers.LoadVolume.__call__",
        "multiad_med.networks.MultiAD.forward",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, broken)
            with pytest.raises(StudyError) as told:
                predict(image)
        assert told.value.kind is kind


def test_what_makes_the_results_is_told_apart(model: Path, tmp_path: Path) -> None:
    other = write_fake_model("multiad_brain_mri", tmp_path / "other.pt", seed=1)
    one, two = predictor(model).about, predictor(other).about
    assert one["bundle"] == two["bundle"] == "multiad_brain_mri"
    assert one["model"] != two["model"]
    assert json.loads(one["settings"])["size"] == 64


def test_what_cannot_be_served_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r'"multiad_brain_mri".*"multiad_liver_ct"'):
        predictor(model, bundle="multiad_liver_ct")
    with pytest.raises(InputError, match=r"\bsizze\b.*mean size\?"):
        StudyPredictor(model, sizze=64)
    with pytest.raises(WeightsError, match=r"no weights file.*no\.pt"):
        predictor(tmp_path / "no.pt")


def test_dicom_results_have_the_same_uids_when_made_again_and_others_by_another_model(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    other = write_fake_model("multiad_brain_mri", tmp_path / "other.pt", seed=1)
    uids = []
    for name, weights in (("a", model), ("b", model), ("c", other)):
        series = save(head_series("1"), tmp_path / name / "in")
        process = processor(predictor(weights), tmp_path / name)
        files = process(FetchedStudy(str(series), tuple(sorted(series.iterdir()))))
        assert len(files) == 3 + 6
        uids.append({dcmread(file).SOPInstanceUID for file in files})
        assert process(FetchedStudy(str(series), tuple(series.iterdir()))) == files
    assert uids[0] == uids[1]
    assert uids[0].isdisjoint(uids[2])


def test_nifti_gets_no_dicom_results(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    volume = nifti_head(tmp_path / "in/x.nii.gz")
    process = processor(predictor(model), tmp_path)
    assert process(FetchedStudy(str(volume))) == []
    assert (tmp_path / "served/x_anomaly_map.nii.gz").is_file()
