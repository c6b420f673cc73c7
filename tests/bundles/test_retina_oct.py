"""The retina bundle: B-scans of any form, and maps on the grid of the B-scans."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from scipy.spatial.transform import Rotation

from multiad_med.data import SliceCache, SliceDataset
from multiad_med.datasets import find_resc
from multiad_med.preparation import load_recipe, prepare
from multiad_med.resources import bundle_path
from multiad_med.testing.cohorts import FAST
from multiad_med.testing.layouts import make_resc
from multiad_med.utils.errors import MultiADError
from tests.bundles import models
from tests.dicom_files import OPT, multiframe, save
from tests.readers.test_bscans import heidelberg

BUNDLE = "multiad_retina_oct"
SPACING = [0.0039, 0.0117, 0.24]  # depth, width, B-scan
DEPTH, WIDTH, SCANS = 48, 32, 6
EYEPY = importlib.util.find_spec("eyepy") is not None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four volumes as folders of images with a datalist; lesions in each one's second half."""
    folder = tmp_path_factory.mktemp("resc")
    rng = np.random.default_rng(0)
    volumes = {"training": 3, "validation": 1}
    make_resc(folder, rng=rng, volumes=volumes, bscans=SCANS, size=(DEPTH, WIDTH))
    items = [
        {
            "image": str(Path(item["image"][0]).parent),
            "label": str(Path(item["label"][0]).parent),
            "subject": item["subject"],
        }
        for item in find_resc(folder)
    ]
    splits = {"training": items[:2], "validation": items[2:3], "test": items[3:]}
    (folder / "datalist.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert bool(models.train(BUNDLE, data, folder)["calibrated"])
    return folder / "model.pt"


def infer(data: Path, model: Path, out: Path, **override: Any) -> dict[str, dict[str, Any]]:
    return models.infer(BUNDLE, data, model, out, **override)


def b_scans(data: Path) -> np.ndarray:
    """The test volume ``(B-scan, depth, width)``, uint8."""
    folder = Path(json.loads((data / "datalist.json").read_text())["test"][0]["image"])
    paths = sorted(folder.iterdir(), key=lambda path: int(path.stem))
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def write_forms(folder: Path, scans: np.ndarray) -> None:
    """The same volume as images, NumPy, NIfTI and multi-frame DICOM, and as Heidelberg's."""
    depth, width, step = SPACING
    (folder / "images").mkdir(parents=True)
    for index, scan in enumerate(scans):
        Image.fromarray(scan).save(folder / f"images/{index}.png")
    np.save(folder / "numpy.npy", scans)
    image = nib.Nifti1Image(scans.transpose(2, 1, 0), np.diag([width, depth, step, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "nifti.nii.gz")
    dataset = multiframe(
        scans.astype(np.uint16),
        sop_class=OPT,
        modality="OPT",
        orientation=None,
        spacing=(depth, width),
        between=step,
        intercept=0.0,
    )
    save([dataset], folder / "dicom")
    if EYEPY:
        raw = np.exp(scans / 255 * 8.285 - 8.3) - 2.44e-4  # what HEYEX shows as these greys
        (folder / "heidelberg.vol").write_bytes(heidelberg(raw.clip(0, 1)))


def test_all_forms_of_a_volume_in_one_folder_give_the_same_map_on_its_grid(
    data: Path, model: Path, tmp_path: Path
) -> None:
    write_forms(tmp_path / "in", b_scans(data))
    rows = infer(tmp_path / "in", model, tmp_path / "out", spacing=SPACING)
    assert {row["status"] for row in rows.values()} == {"done"}
    names = ["images", "numpy", "nifti", "dicom/im000", *(["heidelberg"] if EYEPY else [])]
    maps = [nib.load(tmp_path / f"out/{name}_anomaly_map.nii.gz") for name in names]
    for name, heat in zip(names, maps, strict=True):
        assert heat.shape == (WIDTH, DEPTH, SCANS), name
        depth, width, step = SPACING
        np.testing.assert_allclose(heat.header.get_zooms(), [width, depth, step], rtol=1e-4)
        assert heat.header.get_xyzt_units()[0] == "mm"
        # Heidelberg's logarithm is in steps of a grey value.
        tolerance = 0.02 if name == "heidelberg" else 1e-4
        np.testing.assert_allclose(heat.get_fdata(), maps[0].get_fdata(), atol=tolerance)
        scores = json.loads((tmp_path / f"out/{name}_anomaly.json").read_text())
        assert scores["axis"] == 2
        assert [s["slice"] for s in scores["slices"]] == list(range(SCANS))
    assert maps[0].get_fdata().max() > 0
    again = infer(tmp_path / "in", model, tmp_path / "out", spacing=SPACING)
    assert {row["status"] for row in again.values()} == {"skipped"}


def test_an_oblique_nifti_volume_gets_its_map_on_its_own_affine(
    data: Path, model: Path, tmp_path: Path
) -> None:
    """As scanners place them: depth along the eye's axis, the slices from above to below."""
    scans = b_scans(data)
    depth, width, step = SPACING
    place = np.eye(4)
    place[:3, :3] = Rotation.from_euler("xyz", [100, 12, -160], degrees=True).as_matrix()
    place[:3, 3] = [3, -70, 20]
    affine = place @ np.diag([width, depth, -step, 1])
    (tmp_path / "in").mkdir()
    image = nib.Nifti1Image(scans.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "in/eye.nii.gz")
    infer(tmp_path / "in", model, tmp_path / "out")
    heat = nib.load(tmp_path / "out/eye_anomaly_map.nii.gz")
    assert heat.shape == (WIDTH, DEPTH, SCANS)
    np.testing.assert_allclose(heat.affine, affine, atol=1e-5)
    plain = write_plain(tmp_path / "plain", scans)
    infer(plain, model, tmp_path / "other")
    other = nib.load(tmp_path / "other/numpy_anomaly_map.nii.gz").get_fdata()
    np.testing.assert_allclose(heat.get_fdata(), other, atol=1e-5)
    scores = json.loads((tmp_path / "out/eye_anomaly.json").read_text())
    assert [s["slice"] for s in scores["slices"]] == list(range(SCANS))
    # Slices keep their file's order, whichever way it runs in the patient.
    reference = json.loads((tmp_path / "other/numpy_anomaly.json").read_text())
    np.testing.assert_allclose(
        [s["score"] for s in scores["slices"]],
        [s["score"] for s in reference["slices"]],
        atol=1e-5,
    )


def write_plain(folder: Path, scans: np.ndarray) -> Path:
    folder.mkdir()
    np.save(folder / "numpy.npy", scans)
    return folder


def test_evaluation_counts_the_b_scans_with_lesion(data: Path, model: Path, tmp_path: Path) -> None:
    infer(data, model, tmp_path, config="evaluate.json", bootstrap=20)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (study,) = metrics["studies"]
    folder = Path(json.loads((data / "datalist.json").read_text())["test"][0]["label"])
    labels = [np.asarray(Image.open(path)) > 0 for path in folder.iterdir()]
    assert study["lesion_voxels"] == sum(int(label.sum()) for label in labels)
    slices = (tmp_path / "slices.csv").read_text().splitlines()
    assert len(slices) == 1 + SCANS
    assert (tmp_path / "report.html").is_file()


def test_an_unlabelled_study_cannot_be_evaluated(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(MultiADError) as error:
        models.run_bundle(
            BUNDLE,
            "evaluate.json",
            workflow_type="infer",
            dataset_dir=str(write_plain(tmp_path / "in", b_scans(data))),
            ckpt_path=str(model),
            output_dir=str(tmp_path / "out"),
            **FAST,
        )
    assert re.search(r"no lesion mask.*`label`", str(error.value))


def test_a_mask_of_another_size_is_refused(data: Path, model: Path, tmp_path: Path) -> None:
    write_plain(tmp_path / "in", b_scans(data))
    np.save(tmp_path / "in/label.npy", np.zeros((SCANS, DEPTH, 8), np.uint8))
    item = {"image": "numpy.npy", "label": "label.npy"}
    (tmp_path / "in/datalist.json").write_text(json.dumps({"test": [item]}))
    rows = infer(tmp_path / "in", model, tmp_path / "out", config="evaluate.json")
    assert rows["numpy.npy"]["status"] == "failed"
    told = rows["numpy.npy"]["message"]
    assert re.search(r"mask.*\(48, 8, 6\).*volume.*\(48, 32, 6\)", told)


def test_prepared_b_scans_are_those_that_the_bundle_makes_and_train_it(
    data: Path, tmp_path: Path
) -> None:
    prepare(load_recipe("resc", {"size": 64}), data, tmp_path / "cache", workers=0)
    cache = SliceCache(tmp_path / "cache", split="training")
    config = ConfigParser.load_config_file(bundle_path(BUNDLE) / "configs/train.json")
    config["size"] = 64
    transform = ConfigParser(config).get_parsed_content("train#preprocessing")
    subjects = {row["subject"] for row in cache.index}
    items = [item for item in find_resc(data) if item["subject"] in subjects]
    made = SliceDataset(items, transform, progress=False)
    assert len(made) == len(cache) >= 2 * SCANS // 2
    for ours, theirs in zip(
        *(sorted(part, key=lambda s: (s["subject"], s["slice"])) for part in (made, cache)),
        strict=True,
    ):
        assert (ours["subject"], ours["slice"]) == (theirs["subject"], theirs["slice"])
        np.testing.assert_allclose(ours["image"], theirs["image"], atol=1 / 65535)
        assert torch.equal(ours["foreground"], theirs["foreground"])
    assert bool(models.train(BUNDLE, tmp_path / "cache", tmp_path / "models")["calibrated"])


def test_real_b_scans_give_a_map_of_their_size(
    real_data: Path, model: Path, tmp_path: Path
) -> None:
    rows = infer(real_data / "oct" / "duke_dme_subject01", model, tmp_path / "out")
    assert [row["status"] for row in rows.values()] == ["done"]
    (path,) = (tmp_path / "out").rglob("*_anomaly_map.nii.gz")
    assert path.name == "duke_dme_subject01_anomaly_map.nii.gz"
    assert nib.load(path).shape == (768, 496, 61)
