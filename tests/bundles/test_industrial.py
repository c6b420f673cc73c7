"""The industrial bundle on trees in MVTec's form, plain folders and prepared slices."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from PIL import Image

from multiad_med.card import CardError
from multiad_med.data import CacheError, DatalistError, StudyError
from multiad_med.metrics import auroc
from multiad_med.networks import WeightsError, open_model
from multiad_med.preparation import load_recipe, prepare
from multiad_med.resources import bundle_path, run_bundle
from multiad_med.testing.layouts import make_mvtec, picture, save_image
from multiad_med.testing.layouts.shapes import texture
from multiad_med.training import save_model
from multiad_med.utils.errors import MultiADError, user_error
from multiad_med.visualize.overlay_file import read_overlay
from tests.bundles import models

NAME = "multiad_industrial"
CONFIGS = bundle_path(NAME) / "configs"
SIZE = TILE = 64
CPU = "$torch.device('cpu')"


def train(data: Path, folder: Path, **override: Any) -> Path:
    """Train for an epoch; returns the model."""
    models.train(NAME, data, folder, **{"size": SIZE, **override})
    return folder / "model.pt"


def infer(data: Path, model: Path, out: Path, config: str = "inference.json", **over: Any) -> None:
    run_bundle(
        NAME,
        config,
        workflow_type="infer",
        dataset_dir=str(data),
        ckpt_path=str(model),
        output_dir=str(out),
        **{"size": SIZE, "device": CPU, **over},
    )


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob(pattern))


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "mvtec"
    make_mvtec(folder, rng=np.random.default_rng(0), size=SIZE, train=6)
    return folder


@pytest.fixture(scope="module")
def model(mvtec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of both categories, two epochs."""
    return train(mvtec, tmp_path_factory.mktemp("model"), max_epochs=2)


def cloth(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A grey texture without end, in 8 bits."""
    return 120 + 20 * texture(shape, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def tile_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of tiles of a texture that is larger than they are."""
    folder = tmp_path_factory.mktemp("tiles")
    for seed in range(6):
        save_image(folder / f"in/{seed}.png", cloth((96, 96), seed))
    return train(folder / "in", folder, tile=TILE, max_epochs=2)


def test_training_writes_a_calibrated_model_without_touching_the_test_set(
    mvtec: Path, tmp_path: Path
) -> None:
    for path in (mvtec / "bottle/test").rglob("*.png"):
        target = tmp_path / path.relative_to(mvtec)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"unreadable")
    for part in ("train", "ground_truth"):
        (tmp_path / "bottle" / part).symlink_to(mvtec / "bottle" / part)
    state = torch.load(train(tmp_path, tmp_path / "models"), weights_only=True)
    assert bool(state["calibrated"])
    assert float(state["pixel_false_positive_rate"]) == pytest.approx(0.001)


def test_maps_lie_where_mvtecs_evaluation_code_looks_for_them(
    mvtec: Path, model: Path, tmp_path: Path
) -> None:
    infer(mvtec, model, tmp_path)
    for source in sorted(mvtec.glob("*/test/*/*.png")):
        category, _, kind, _ = source.relative_to(mvtec).parts
        written = tifffile.imread(tmp_path / category / "test" / kind / f"{source.stem}.tiff")
        assert written.dtype == np.float32
        assert written.shape == (SIZE, SIZE)
        assert 0 <= written.min() <= written.max() < 1
        scores = json.loads(
            (tmp_path / category / "test" / kind / f"{source.stem}_anomaly.json").read_text()
        )
        assert scores["image"] == str(source)
        # Images of the network's size: nothing is resized after scoring.
        assert scores["volume_score"] == pytest.approx(float(written.max()), abs=1e-6)
        shown = read_overlay(tmp_path / category / "test" / kind / f"{source.stem}_anomaly.png")
        assert (shown.size, shown.mode) == ((SIZE, SIZE), "RGB")
    assert len(files(tmp_path, "*.tiff")) == 10


def test_a_categorys_own_folder_gives_the_same_tree(
    mvtec: Path, model: Path, tmp_path: Path
) -> None:
    infer(mvtec / "screw", model, tmp_path / "a")
    infer(mvtec, model, tmp_path / "b", categories=["screw"])
    assert files(tmp_path / "a", "*.tiff") == files(tmp_path / "b", "*.tiff")
    assert files(tmp_path / "a", "*.tiff")[0] == "screw/test/crack/000.tiff"


def test_evaluation_has_metrics_of_all_images_and_of_each_category(
    mvtec: Path, model: Path, tmp_path: Path
) -> None:
    infer(mvtec, model, tmp_path, "evaluate.json", bootstrap=50)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    expected = {}
    for category in ("bottle", "screw"):
        maps, masks = [], []
        for path in sorted((tmp_path / category).rglob("*.tiff")):
            kind = path.parent.name
            mask = mvtec / category / "ground_truth" / kind / f"{path.stem}_mask.png"
            maps.append(tifffile.imread(path))
            masks.append(np.asarray(Image.open(mask)) > 0 if mask.is_file() else 0 * maps[-1] > 0)
        expected[category] = auroc(
            torch.from_numpy(np.stack(maps)).flatten(), torch.from_numpy(np.stack(masks)).flatten()
        )
        own = metrics["categories"][category]
        assert own["pixel_auroc"] == pytest.approx(expected[category], abs=1e-4)  # in bins
        assert own.keys() >= {"image_auroc", "image_ap", "pixel_ap", "aupro"}
    mean = metrics["categories"]["mean"]["pixel_auroc"]
    assert mean == pytest.approx(sum(expected.values()) / 2, abs=1e-4)
    pooled = metrics["categories"]["pooled"]
    assert pooled["pixel_auroc"] == metrics["pixel_auroc"]
    assert metrics["counts"]["slices"] == 10
    assert metrics["counts"]["abnormal_slices"] == 6
    assert (tmp_path / "categories.csv").read_text().count("\n") == 5
    assert "bottle/test/crack/000" in (tmp_path / "report.html").read_text()
    assert metrics["manifest"]["config"]["tile"] is None


def test_a_image_called_anomalous_counts_though_it_has_no_mask(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("ok/0.png", "ok/1.png", "broken/0.png"):
        save_image(tmp_path / "in" / name, picture(48, rng, defect=name[0] == "b")[0])
    infer(tmp_path / "in", model, tmp_path / "out", "evaluate.json", bootstrap=50)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["counts"]["abnormal_slices"] == 1
    assert 0 <= metrics["image_auroc"] <= 1
    assert {s["study"]: s["kind"] for s in metrics["studies"]}["broken/0"] == "broken"


def test_any_size_and_depth_in_a_plain_folder(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (50, 90), dtype=np.uint8)
    images = {
        "a/grey.png": grey,
        "a/deep.png": grey.astype(np.uint16) * 257,
        "b/colour.jpg": np.stack([grey[:33]] * 3, axis=-1),
        "b/c/large.bmp": rng.integers(0, 255, (130, 70, 3), dtype=np.uint8),
        "tiny.tif": grey[:1, :5],
    }
    for name, values in images.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    infer(tmp_path / "in", model, tmp_path / "out")
    maps = {}
    for name, values in images.items():
        maps[name] = tifffile.imread((tmp_path / "out" / name).with_suffix(".tiff"))
        assert maps[name].shape == values.shape[:2], name
    # The same image in 8 and in 16 bits.
    np.testing.assert_allclose(maps["a/grey.png"], maps["a/deep.png"], atol=1e-5)


def test_a_plain_folder_and_a_datalist_train(mvtec: Path, tmp_path: Path) -> None:
    good = mvtec / "screw/train/good"
    assert train(good, tmp_path / "plain").is_file()
    items = [{"image": str(path), "subject": path.stem} for path in sorted(good.iterdir())]
    listed = {"training": items[:-1], "validation": items[-1:]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    assert train(tmp_path / "list.json", tmp_path / "listed").is_file()


def test_a_black_image_is_judged_as_any_other(model: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "in/black.png", np.zeros((SIZE, SIZE, 3)))
    infer(tmp_path / "in", model, tmp_path / "out")
    assert json.loads((tmp_path / "out/black_anomaly.json").read_text())["volume_score"] > 0


def prepared_by_any(model: Path, folder: Path) -> Path:
    """The model without what its card tells of preparation, so that each can be asked for."""
    save_model(open_model(model), folder / "any.pt", card={"preparation": {}})
    return folder / "any.pt"


def test_light_no_longer_changes_the_map_where_it_is_evened(model: Path, tmp_path: Path) -> None:
    model = prepared_by_any(model, tmp_path)
    image = 0.5 * picture(SIZE, np.random.default_rng(0), defect=True)[0]
    for name, factor in (("bright", 1.0), ("dark", 0.5)):
        save_image(tmp_path / f"in/{name}.png", factor * image)

    def difference(out: Path, **options: Any) -> float:
        infer(tmp_path / "in", model, out, **options)
        bright, dark = (tifffile.imread(out / f"{name}.tiff") for name in ("bright", "dark"))
        return float(np.abs(bright - dark).max())

    evened = difference(tmp_path / "evened", normalise_brightness=True)
    assert evened < 0.5 * difference(tmp_path / "plain")


# --- tiles


def test_a_image_of_exactly_one_tile_has_the_map_without_tiles(
    mvtec: Path, model: Path, tmp_path: Path
) -> None:
    model = prepared_by_any(model, tmp_path)
    for name, tile in (("whole", None), ("tiled", SIZE)):
        infer(mvtec, model, tmp_path / name, tile=tile, categories=["screw"])
    for name in files(tmp_path / "whole", "*.tiff"):
        np.testing.assert_allclose(
            tifffile.imread(tmp_path / "tiled" / name),
            tifffile.imread(tmp_path / "whole" / name),
            atol=1e-6,
        )


def test_a_defect_in_a_large_image_is_where_it_is(tile_model: Path, tmp_path: Path) -> None:
    large = cloth((160, 224), 9)
    large[112:124, 40:52] = 255
    save_image(tmp_path / "in/large.png", large)
    infer(tmp_path / "in", tile_model, tmp_path / "out", tile=TILE)
    heat = tifffile.imread(tmp_path / "out/large.tiff")
    assert heat.shape == (160, 224)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 108 <= row < 128
    assert 36 <= column < 56


def test_images_smaller_than_the_tile_are_padded_in_training_and_inference(
    tmp_path: Path,
) -> None:
    for seed in range(3):
        save_image(tmp_path / f"in/{seed}.png", cloth((20, 60), seed))
    model = train(tmp_path / "in", tmp_path, tile=TILE)
    infer(tmp_path / "in", model, tmp_path / "out", tile=TILE)
    assert tifffile.imread(tmp_path / "out/0.tiff").shape == (20, 60)


# --- prepared slices


def dataset(source: Path, split: str, **settings: Any) -> Any:
    """A data set of train.json."""
    config = ConfigParser.load_config_file(CONFIGS / "train.json")
    parser = ConfigParser({**config, "dataset_dir": str(source), "size": SIZE, **settings})
    return parser.get_parsed_content(f"{split}#dataset")


@pytest.mark.parametrize(("tile", "normalise_brightness"), [(None, False), (48, True)])
def test_prepared_slices_are_those_of_the_images(
    mvtec: Path, tmp_path: Path, tile: int | None, normalise_brightness: bool
) -> None:
    settings = {"tile": tile, "normalise_brightness": normalise_brightness}
    recipe = load_recipe("mvtec_ad", {"size": SIZE, **settings})
    prepare(recipe, mvtec, tmp_path, workers=0, progress=False)
    options = {**settings, "categories": ["screw"]}
    for split in ("train", "validate"):
        stored, made = (dataset(folder, split, **options) for folder in (tmp_path, mvtec))
        assert len(stored) == len(made) > 0
        for i in range(len(made)):
            assert stored[i]["subject"] == made[i]["subject"]
            # Stored in 8 bits.
            torch.testing.assert_close(
                stored[i]["image"], made[i]["image"], atol=0.51 / 255, rtol=0
            )
    with pytest.raises(RuntimeError) as error:
        dataset(tmp_path, "train", tile=tile, normalise_brightness=not normalise_brightness)
    cause = user_error(error.value)
    assert isinstance(cause, CacheError)
    assert f"normalise_brightness={normalise_brightness}" in str(cause)


# --- bad input


def test_an_unreadable_image_is_passed_over_and_the_run_ends_with_an_error(
    mvtec: Path, model: Path, tmp_path: Path
) -> None:
    good = (mvtec / "screw/test/good/000.png").read_bytes()
    for name, content in (("a", good), ("b", good[: len(good) // 2]), ("c", good)):
        (tmp_path / f"in/{name}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"in/{name}.png").write_bytes(content)
    with pytest.raises(MultiADError) as error:
        infer(tmp_path / "in", model, tmp_path / "out")
    assert isinstance(user_error(error.value), StudyError)
    assert "1 of 3 studies failed" in str(user_error(error.value))
    assert "b.png: not a readable" in str(user_error(error.value))
    assert files(tmp_path / "out", "*.tiff") == ["a.tiff", "c.tiff"]
    assert not list((tmp_path / "out").rglob(".partial*"))


def _empty(folder: Path, mvtec: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _without_train(folder: Path, mvtec: Path) -> Path:
    (folder / "nut").mkdir()
    (folder / "nut/test").symlink_to(mvtec / "screw/test")
    return folder / "nut"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (_empty, {}, "no files"),
        (_without_train, {}, "no category with train/good"),
        (lambda _, mvtec: mvtec, {"categories": ["nut"]}, r"\['nut'\].*\['bottle'"),
    ],
)
def test_folders_that_cannot_be_used_are_refused_with_the_reason(
    mvtec: Path, model: Path, tmp_path: Path, source: Any, options: dict[str, Any], message: str
) -> None:
    data = source(tmp_path, mvtec)
    for act in (
        lambda: train(data, tmp_path / "models", **options),
        lambda: infer(data, model, tmp_path / "out", **options),
    ):
        with pytest.raises(MultiADError) as error:
            act()
        assert isinstance(user_error(error.value), DatalistError)
        assert re.search(message, str(user_error(error.value)))
    assert not (tmp_path / "models/model.pt").exists()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path, model: None, {}, "no weights file"),
        (lambda path, model: path.write_bytes(b"x" * 100), {}, "not a readable"),
        (
            lambda path, model: path.write_bytes(model.read_bytes()),
            {"preset": "efficientnet_lite0"},
            'preset "efficientnet_lite0_decoder".* "efficientnet_lite0"',
        ),
    ],
)
def test_wrong_models_are_refused(
    mvtec: Path, model: Path, tmp_path: Path, make: Any, options: dict[str, Any], message: str
) -> None:
    make(tmp_path / "model.pt", model)
    with pytest.raises(MultiADError) as error:
        infer(mvtec, tmp_path / "model.pt", tmp_path / "out", **options)
    assert isinstance(user_error(error.value), (CardError, WeightsError))
    assert re.search(message, str(user_error(error.value)))
    assert not (tmp_path / "out").exists()


# --- real images


def test_real_hazelnuts(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "industrial/hazelnut_toy"
    model = train(data, tmp_path / "models", max_epochs=4)
    infer(data, model, tmp_path / "out", "evaluate.json", bootstrap=50)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["counts"] | {"abnormal_slices": 17, "slices": 23} == metrics["counts"]
    assert metrics["pixel_auroc"] > 0.85
    assert len(files(tmp_path / "out", "*.tiff")) == 23
