"""The brain bundle on what hospitals have: prepared slices to train on, DICOM to look at."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from multiad_med.preparation import load_recipe, prepare
from multiad_med.readers import LoadVolume
from multiad_med.testing.brains import head, make_brains, write_nifti
from tests.bundles.test_brain_mri import FAST, _inference, run
from tests.dicom_files import ct_slices, save


def dicom_head(folder: Path, patient: str, **kwargs: object) -> Path:
    """A head as a DICOM series of 12 slices."""
    volume = head(np.random.default_rng(1), (40, 48, 12)).clip(0).astype(np.uint16)
    uid = f"1.2.3.{len(patient)}"
    slices = ct_slices(volume.transpose(2, 1, 0), intercept=0.0, spacing=(4.0, 4.0), step=8.0)
    for part in slices:
        part.PatientID, part.SeriesInstanceUID = patient, uid
        part.Modality = kwargs.get("modality", "MR")
    drop = kwargs.get("without")
    save([s for i, s in enumerate(slices) if i != drop], folder / patient)
    return folder / patient


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model trained on prepared slices whose volumes are gone."""
    folder = tmp_path_factory.mktemp("prepared")
    data = make_brains(folder)
    table = ["image,subject,split"]
    for split, items in json.loads((data / "datalist.json").read_text()).items():
        table += [f"{data / i['image']},{i['subject']},{split}" for i in items]
    (folder / "table.csv").write_text("\n".join(table))
    cache = folder / "cache"
    summary = prepare(load_recipe("volumes", {"size": 64}), folder / "table.csv", cache, workers=0)
    assert summary.failures == []
    for image in (data / "images").iterdir():
        image.unlink()
    run(
        "train",
        "train.json",
        dataset_dir=str(cache),
        ckpt_dir=str(folder / "models"),
        output_dir=str(folder / "out"),
        **FAST,
    )
    return {"models": folder / "models", "data": data}


def test_training_reads_prepared_slices_without_their_volumes(trained: dict[str, Path]) -> None:
    state = torch.load(trained["models"] / "model.pt", weights_only=True)
    assert bool(state["calibrated"])


def test_maps_of_dicom_series_are_nifti_on_their_grid(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    dicom_head(tmp_path / "in", "anna")
    dicom_head(tmp_path / "in", "berta-maria")
    _inference(trained, tmp_path / "out", tmp_path / "in")
    maps = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*map.nii.gz"))
    assert [str(p) for p in maps] == ["anna_anomaly_map.nii.gz", "berta-maria_anomaly_map.nii.gz"]
    source = LoadVolume()(tmp_path / "in/anna")
    image = nib.load(tmp_path / "out" / maps[0])
    assert image.shape == tuple(source.shape[1:])
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
    scores = json.loads((tmp_path / "out/anna_anomaly.json").read_text())
    assert scores["image"].endswith("anna")
    assert len(scores["slices"]) + len(scores["not_scored_slices"]) == 12


def test_a_dicom_series_with_a_missing_slice_gets_no_map_and_the_others_do(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    dicom_head(tmp_path / "in", "anna", without=5)
    dicom_head(tmp_path / "in", "berta-maria")
    with pytest.raises(RuntimeError) as error:
        _inference(trained, tmp_path / "out", tmp_path / "in")
    assert "1 of 2 studies failed" in str(error.value.__cause__)
    assert re.search(r"\b1 slice.*missing", str(error.value.__cause__))
    maps = [p.name for p in (tmp_path / "out").rglob("*map.nii.gz")]
    assert maps == ["berta-maria_anomaly_map.nii.gz"]


def test_nifti_of_the_same_head_gives_the_same_map(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    folder = dicom_head(tmp_path / "in", "anna")
    source = LoadVolume()(folder)
    write_nifti(tmp_path / "nifti/anna.nii.gz", source[0].numpy(), source.affine.numpy())
    _inference(trained, tmp_path / "a", tmp_path / "in")
    _inference(trained, tmp_path / "b", tmp_path / "nifti")
    one, two = (nib.load(tmp_path / f"{x}/anna_anomaly_map.nii.gz").get_fdata() for x in ("a", "b"))
    np.testing.assert_allclose(one, two, atol=1e-5)
