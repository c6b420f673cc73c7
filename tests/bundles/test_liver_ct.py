"""The liver bundle: CT in HU, an organ mask or the body as foreground."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy.spatial.transform import Rotation

from multiad_med.data import SliceCache, SliceDataset
from multiad_med.preparation import load_recipe, prepare
from multiad_med.readers import LoadVolume
from multiad_med.resources import bundle_path
from multiad_med.testing.brains import write_nifti
from multiad_med.testing.layouts import make_lits
from tests.bundles import models
from tests.dicom_files import ct_slices, save

BUNDLE = "multiad_liver_ct"
SHAPE = (64, 64, 16)
LITS: dict[str, Any] = {"lesion_labels": [2]}


def make_tree(folder: Path) -> Path:
    """Five LiTS volumes with a datalist: three training, one validation, one test."""
    make_lits(folder, rng=np.random.default_rng(0), volumes=5, healthy=0, shape=SHAPE)
    splits: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    for number, split in enumerate(["training"] * 3 + ["validation", "test"]):
        (image,) = folder.rglob(f"volume-{number}.nii")
        mask = str(image.with_name(f"segmentation-{number}.nii"))
        item = {"image": str(image), "organ": mask, "label": mask, "subject": f"volume-{number}"}
        splits[split].append(item)
    (folder / "datalist.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("lits"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert bool(models.train(BUNDLE, data, folder, **LITS)["calibrated"])
    return folder / "model.pt"


def infer(data: Path, model: Path, out: Path, **override: Any) -> dict[str, dict[str, Any]]:
    return models.infer(BUNDLE, data, model, out, **override)


def tested(data: Path) -> dict[str, str]:
    """The item of the test study."""
    item: dict[str, str] = json.loads((data / "datalist.json").read_text())["test"][0]
    return item


def listed(folder: Path, **item: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "datalist.json").write_text(json.dumps({"test": [item]}))
    return folder


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_map_is_on_the_files_grid_and_within_the_liver(
    data: Path, model: Path, tmp_path: Path
) -> None:
    infer(data, model, tmp_path)
    (path,) = tmp_path.rglob("volume-4_anomaly_map.nii.gz")
    source, heat = nib.load(tested(data)["image"]), nib.load(path)
    assert heat.shape == source.shape
    np.testing.assert_allclose(heat.affine, source.affine, atol=1e-4)
    liver = voxels(Path(tested(data)["organ"])) > 0
    values = heat.get_fdata()
    assert values[liver].max() > 0
    assert values[~liver].max() == 0
    (scores,) = tmp_path.rglob("*_anomaly.json")
    content = json.loads(scores.read_text())
    areas = liver.sum(axis=(0, 1))
    assert content["not_scored_slices"] == np.flatnonzero(areas < 0.1 * areas.max()).tolist()
    assert content["settings"]["windows"] == [[-200, 250]]


def test_the_same_ct_on_an_oblique_permuted_grid_gives_the_same_map(
    data: Path, model: Path, tmp_path: Path
) -> None:
    """Axes stored as (z, -x, y), 6.4 x 6.4 x 5 mm, turned by some degrees: the same pixels."""
    item = tested(data)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [4, -7, 10], degrees=True).as_matrix()
    source = nib.load(item["image"])
    flip = np.array([[0, -1, 0, SHAPE[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    affine = turn @ source.affine @ flip
    paths = {}
    for key in ("image", "organ"):
        turned = voxels(Path(item[key]))[::-1].transpose(2, 0, 1)
        paths[key] = str(write_nifti(tmp_path / f"in/{key}.nii.gz", turned, affine))
    infer(listed(tmp_path / "in", **paths), model, tmp_path / "turned")
    infer(data, model, tmp_path / "plain")
    (turned_map,) = (tmp_path / "turned").rglob("*_map.nii.gz")
    (plain_map,) = (tmp_path / "plain").rglob("*_map.nii.gz")
    np.testing.assert_allclose(nib.load(turned_map).affine, affine, atol=1e-3)
    back = voxels(turned_map).transpose(1, 2, 0)[::-1]
    np.testing.assert_allclose(back, voxels(plain_map), atol=1e-5)
    (scores,) = (tmp_path / "turned").rglob("*_anomaly.json")
    assert json.loads(scores.read_text())["axis"] == 0


def test_without_an_organ_mask_the_liver_model_refuses_and_a_body_model_works(
    data: Path, model: Path, tmp_path: Path
) -> None:
    item = tested(data)
    plain = listed(tmp_path / "in", image=item["image"])
    rows = infer(plain, model, tmp_path / "out")
    assert rows["volume-4.nii"]["status"] == "failed"
    assert "no mask 'organ'" in rows["volume-4.nii"]["message"]
    models.train(BUNDLE, data, tmp_path / "body", region="body", **LITS)
    rows = infer(plain, tmp_path / "body/model.pt", tmp_path / "out", region="body")
    assert rows["volume-4.nii"]["status"] == "done"
    (path,) = (tmp_path / "out").rglob("*_map.nii.gz")
    body = voxels(Path(item["image"])) > -300
    heat = voxels(path)
    assert (heat > 0)[body].mean() > 0.9
    assert (heat > 0)[~body].mean() < 0.1


def test_dicom_with_a_mask_stored_the_other_way_round(model: Path, tmp_path: Path) -> None:
    """A NIfTI mask of a DICOM series: rows run the other way, and the grid is the same."""
    volume = np.full((6, 40, 48), 24, np.uint16)  # -1000 HU
    volume[:, 8:32, 8:40] = 1064
    volume[:, 12:28, 12:24] = 1130
    slices = ct_slices(volume, spacing=(4.0, 4.0), step=5.0)
    save(slices, tmp_path / "in/series")
    source = LoadVolume()(tmp_path / "in/series")
    affine, organ = source.affine.numpy().copy(), (source[0].numpy() > 90).astype(np.uint8)
    affine[:3, 3] += affine[:3, 1] * (organ.shape[1] - 1)
    affine[:3, 1] *= -1
    write_nifti(tmp_path / "in/organ.nii.gz", organ[:, ::-1], affine)
    listed(tmp_path / "in", image="series", organ="organ.nii.gz")
    rows = infer(tmp_path / "in", model, tmp_path / "out")
    assert rows["series"]["status"] == "done"
    heat = nib.load(tmp_path / "out/series_anomaly_map.nii.gz")
    np.testing.assert_allclose(heat.affine, source.affine, atol=1e-4)
    assert not heat.get_fdata()[organ == 0].any()
    assert heat.get_fdata()[organ > 0].any()


def test_a_changed_organ_mask_makes_a_study_unfinished(
    data: Path, model: Path, tmp_path: Path
) -> None:
    item = tested(data)
    organ = (voxels(Path(item["organ"])) > 0).astype(np.uint8)
    affine = nib.load(item["image"]).affine
    write_nifti(tmp_path / "in/organ.nii.gz", organ, affine)
    folder = listed(tmp_path / "in", image=item["image"], organ="organ.nii.gz")

    def status() -> Any:
        return infer(folder, model, tmp_path / "out")["volume-4.nii"]["status"]

    assert [status(), status()] == ["done", "skipped"]
    organ[:32] = 0
    organ[40, 32, 4:12] = 1
    write_nifti(tmp_path / "in/organ.nii.gz", organ, affine)
    assert [status(), status()] == ["done", "skipped"]


def test_a_folder_with_organ_masks_is_read_by_their_glob(
    data: Path, model: Path, tmp_path: Path
) -> None:
    item = tested(data)
    ct, organ = nib.load(item["image"]), voxels(Path(item["organ"]))
    for name in ("anna", "berta"):
        write_nifti(tmp_path / f"in/{name}.nii.gz", np.asarray(ct.dataobj), ct.affine)
    write_nifti(tmp_path / "in/anna_liver.nii.gz", organ, ct.affine)
    rows = infer(tmp_path / "in", model, tmp_path / "out", organ_glob="**/*_liver.nii.gz")
    assert {name: row["status"] for name, row in rows.items()} == {
        "anna.nii.gz": "done",
        "berta.nii.gz": "failed",
    }


@pytest.mark.parametrize(
    ("shape", "shift", "message"),
    [(SHAPE, 3.0, "affine differs"), ((64, 64, 8), 0.0, r"shape \(64, 64, 8\) differs")],
)
def test_an_organ_mask_on_another_grid_is_refused(
    data: Path, model: Path, tmp_path: Path, shape: Any, shift: float, message: str
) -> None:
    item = tested(data)
    affine = nib.load(item["image"]).affine.copy()
    affine[0, 3] += shift
    write_nifti(tmp_path / "in/organ.nii.gz", np.ones(shape, np.uint8), affine)
    folder = listed(tmp_path / "in", image=item["image"], organ="organ.nii.gz")
    rows = infer(folder, model, tmp_path / "out")
    assert rows["volume-4.nii"]["status"] == "failed"
    assert re.search(message, rows["volume-4.nii"]["message"])
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_evaluation_takes_the_lesion_label_and_not_the_liver(
    data: Path, model: Path, tmp_path: Path
) -> None:
    infer(data, model, tmp_path, config="evaluate.json", bootstrap=20, **LITS)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (study,) = metrics["studies"]
    assert study["lesion_voxels"] == int((voxels(Path(tested(data)["label"])) == 2).sum())
    for key in ("image_auroc", "pixel_auroc", "pixel_ap"):
        assert 0 <= metrics[key] <= 1
    assert metrics["manifest"]["config"]["region"] == "organ"


TABLE = "volumes"


@pytest.mark.parametrize(
    ("recipe", "settings", "override"),
    [
        ("lits", {}, LITS),
        ("lits", {"windows": ["liver", "abdomen", "bone"]}, LITS),
        ("lits", {"centre": 100}, {**LITS, "centre": 100}),
        (TABLE, {"kind": "ct", "windows": [[-200, 250]]}, {}),
        (TABLE, {"kind": "ct", "windows": ["abdomen"]}, {"region": "body"}),
    ],
)
def test_prepared_slices_are_those_that_the_bundle_makes(
    data: Path, tmp_path: Path, recipe: str, settings: dict[str, Any], override: dict[str, Any]
) -> None:
    splits = json.loads((data / "datalist.json").read_text())
    items = [item for split in splits.values() for item in split]
    source = data
    if recipe == TABLE:
        rows = ["image,subject,split,organ"]
        for item in items:
            del item["label"]
            if override.get("region") == "body":
                del item["organ"]
            rows.append(f"{item['image']},{item['subject']},training,{item.get('organ', '')}")
        source = tmp_path / "table.csv"
        source.write_text("\n".join([*rows[:4], rows[4].replace("training", "validation")]))
    prepare(load_recipe(recipe, {"size": 64, **settings}), source, tmp_path / "cache", workers=0)
    cache = SliceCache(tmp_path / "cache", split="training")
    config = ConfigParser.load_config_file(bundle_path(BUNDLE) / "configs/train.json")
    config.update({"size": 64, **override})
    config["windows"] = settings.get("windows", config["windows"])
    transform = ConfigParser(config).get_parsed_content("train#preprocessing")
    subjects = {row["subject"] for row in cache.index}
    chosen = [item for item in items if item["subject"] in subjects]
    made = SliceDataset(chosen, transform, progress=False)
    assert len(made) == len(cache) > 10
    for ours, theirs in zip(
        *(sorted(part, key=lambda s: (s["subject"], s["slice"])) for part in (made, cache)),
        strict=True,
    ):
        assert (ours["subject"], ours["slice"]) == (theirs["subject"], theirs["slice"])
        np.testing.assert_allclose(ours["image"], theirs["image"], atol=1 / 65535)
        assert torch.equal(ours["foreground"], theirs["foreground"])


def test_training_from_prepared_slices(data: Path, tmp_path: Path) -> None:
    prepare(load_recipe("lits", {"size": 64}), data, tmp_path / "cache", workers=0)
    state = models.train(BUNDLE, tmp_path / "cache", tmp_path / "models")
    assert bool(state["calibrated"])


def test_real_ct_is_windowed_and_masked(real_data: Path) -> None:
    """Of the patient in the data folder, whose DICOM series has a segmentation (5 is liver)."""
    config = ConfigParser.load_config_file(bundle_path(BUNDLE) / "configs/train.json")
    config["organ_labels"] = [5]
    transform = ConfigParser(config).get_parsed_content("train#preprocessing")
    item = {
        "image": str(real_data / "ct/example_ct_dicom"),
        "organ": str(real_data / "ct/example_seg_dicom.nii.gz"),
    }
    prepared = transform(item)
    image, foreground = prepared["image"], prepared["foreground"] > 0
    assert image.shape == (1, 256, 256, 20)
    assert float(image[~foreground].max()) == 0
    # Enhanced liver has some 100 to 150 HU: (125 + 200) / 450.
    assert float(image[foreground].median()) == pytest.approx(0.72, abs=0.07)
