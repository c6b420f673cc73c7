"""Networks whose input is a rectangle: the industrial bundle chooses one, every bundle takes one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigParser
from PIL import Image

from multiad_med.evaluation.labelled import evaluate_model
from multiad_med.networks import open_model, read_card
from multiad_med.preparation import load_recipe, prepare
from multiad_med.testing.cohorts import COHORTS, one_bundle_per_input
from multiad_med.testing.layouts import save_image
from multiad_med.utils.errors import MultiADError, user_error
from multiad_med.visualize.overlay_file import read_overlay
from tests.bundles import models
from tests.bundles.test_industrial import CONFIGS, cloth, dataset, infer, train

SIZE = [64, 96]  # X, Y of volumes
REGIONS = {"multiad_brain_mri": "images", "multiad_liver_ct": "organs"}
"""Folder of what is above 0 where a bundle maps; of B-scans all is."""


@pytest.mark.parametrize("name", [n for n in one_bundle_per_input() if n != "multiad_industrial"])
def test_a_rectangle_is_on_the_card_and_maps_have_the_volumes_grid(
    name: str, tmp_path: Path
) -> None:
    data = COHORTS[name](tmp_path)
    models.train(name, data, tmp_path / "models", size=SIZE)
    card = read_card(tmp_path / "models/model.pt")
    assert card is not None
    assert card.preparation["size"] == SIZE
    rows = models.infer(name, data, tmp_path / "models/model.pt", tmp_path / "out", size=None)
    assert {row["status"] for row in rows.values()} == {"done"}
    for row in rows.values():
        source, heat = nib.load(row["image"]), nib.load(tmp_path / "out" / row["map"])
        assert heat.shape == source.shape
        np.testing.assert_allclose(heat.affine, source.affine, atol=1e-5)
        values = heat.get_fdata()
        assert values.std() > 0

        if (region := REGIONS.get(name)) is not None:
            path = data / region / Path(row["image"]).name
            inside = np.argwhere(nib.load(path).get_fdata() > 0)
            mapped = np.argwhere(values > 0)
            for edge in (np.min, np.max):  # of X and Y, which differ
                np.testing.assert_allclose(edge(mapped, 0)[:2], edge(inside, 0)[:2], atol=2)


# --- images: rows, columns


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category of images of 96 rows and 256 columns; a defect is a white square left below."""
    folder = tmp_path_factory.mktemp("strips")
    for seed in range(8):
        values = cloth((96, 256), seed)
        part = "train/good" if seed < 6 else "test/spot"
        if seed >= 6:
            values[70:82, 30:42] = 255
            mask = np.zeros(values.shape)
            mask[70:82, 30:42] = 255
            save_image(folder / f"ground_truth/spot/{seed}_mask.png", mask)
        save_image(folder / part / f"{seed}.png", values)
    return folder


@pytest.fixture(scope="module")
def strip_model(strips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the size that the bundle itself chooses."""
    folder = tmp_path_factory.mktemp("strip_model")
    return train(strips, folder, size=None, max_epochs=2)


def test_images_keep_their_shape_and_the_card_tells_the_size(strip_model: Path) -> None:
    network = open_model(strip_model)
    assert network.card.preparation["size"] == [160, 416]
    assert network.card.preparation["aspects"] == [256 / 96, 256 / 96]


def test_a_defect_in_a_rectangle_is_where_it_is(
    strips: Path, strip_model: Path, tmp_path: Path
) -> None:
    infer(strips, strip_model, tmp_path, "evaluate.json", size=None, bootstrap=20)
    for name in ("6", "7"):
        heat = tifffile.imread(tmp_path / f"{strips.name}/test/spot/{name}.tiff")
        assert heat.shape == (96, 256)
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert 66 <= row < 86
        assert 26 <= column < 46
        shown = read_overlay(tmp_path / f"{strips.name}/test/spot/{name}_anomaly.png")
        assert shown.size == (256, 96)
    assert json.loads((tmp_path / "metrics.json").read_text())["pixel_auroc"] > 0.9


def test_another_size_or_shape_than_the_models_is_told(
    strips: Path, strip_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(MultiADError, match=r"size \[160, 416\].*\[416, 160\]"):
        infer(strips / "test", strip_model, tmp_path / "a", size=[416, 160])
    upright = Image.open(strips / "test/spot/6.png").transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "in").mkdir()
    upright.save(tmp_path / "in/upright.png")
    with pytest.warns(UserWarning, match=r"upright\.png: 256x96 pixels"):
        infer(tmp_path / "in", strip_model, tmp_path / "b", size=None)
    assert tifffile.imread(tmp_path / "b/upright.tiff").shape == (256, 96)


def test_rectangular_tiles_train_and_map_an_image_at_its_own_size(
    strips: Path, tmp_path: Path
) -> None:
    model = train(strips, tmp_path, size=None, tile=[64, 128])
    assert open_model(model).card.preparation["tile"] == [64, 128]
    infer(strips / "test/spot", model, tmp_path / "out", size=None, tile=[64, 128])
    assert tifffile.imread(tmp_path / "out/6.tiff").shape == (96, 256)


def test_rectangular_slices_train_with_their_own_size_and_no_other(
    strips: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    prepare(load_recipe("mvtec_ad", {"size": [64, 160]}), strips, cache, workers=0, progress=False)
    assert json.loads((cache / "cache.json").read_text())["size"] == [64, 160]
    assert dataset(cache, "train", size=None)[0]["image"].shape == (3, 64, 160)
    with pytest.raises(RuntimeError) as error:
        dataset(cache, "train", size=[160, 64])
    assert re.search(r"\[64, 160\].*\[160, 64\]", str(user_error(error.value)))
    model = train(cache, tmp_path / "model", size=None)
    assert open_model(model).card.preparation["size"] == [64, 160]
    evaluate_model(cache, model, tmp_path / "report", bootstrap=5)
    assert json.loads((tmp_path / "report/metrics.json").read_text())["counts"]["slices"] > 0


def test_sites_of_a_federation_have_one_size_though_their_images_differ(strips: Path) -> None:
    parser = ConfigParser(
        ConfigParser.load_config_files([CONFIGS / "train.json", CONFIGS / "federated.json"])
    )
    parser["dataset_dir"] = str(strips)
    assert parser.get_parsed_content("prepared") == {"size": 256, "aspects": None}
