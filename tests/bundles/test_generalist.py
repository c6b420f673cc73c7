"""The generalist bundle: several products, or several organs, in one model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from multiad_med import AnomalyDetector
from multiad_med.card import CardError
from multiad_med.data import CacheError
from multiad_med.evaluation.labelled import evaluate_model
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.networks import bundle_of_model, model_preparation, read_card
from multiad_med.preparation import load_recipe, prepare
from multiad_med.recalibration import recalibrate
from multiad_med.scoring import Level
from multiad_med.testing.brains import make_brains
from multiad_med.testing.cohorts import make_products
from multiad_med.testing.slice_caches import SIZE, make_cache
from multiad_med.utils.errors import MultiADError, user_error
from tests.bundles.models import infer, train

NAME = "multiad_generalist"
PRODUCTS = ["nut", "screw", "tile"]
ORGANS = ["brain_mri", "liver_ct", "retina_oct"]
QUICK: dict[str, Any] = {"teacher_weights": "random", "max_epochs": 1}


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_products(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def product_model(products: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train(NAME, products, folder, **QUICK)
    return folder / "model.pt"


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared slices: real ones of brains, and made-up ones in place of the other organs."""
    folder = tmp_path_factory.mktemp("organs")
    brains = make_brains(folder / "source")
    recipe = load_recipe(
        "volumes", {"size": SIZE, "training": 0.5, "validation": 0.25, "test": 0.25}
    )
    prepare(recipe, brains, folder / "slices/brain_mri", workers=0, progress=False)
    for name in ORGANS[1:]:
        make_cache(folder / "slices" / name, categories=("organ",))
    return folder / "slices"


@pytest.fixture(scope="module")
def organ_model(organs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train(NAME, organs, folder, size=None, **QUICK)
    return folder / "model.pt"


def metrics_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


# --- products


def test_one_model_learns_three_products_place_by_place_and_as_a_whole(product_model: Path) -> None:
    card = read_card(product_model)
    assert card is not None
    assert (card.domain, card.network["preset"]) == ("generalist", "efficientnet_lite2_decoder")
    assert card.network["experts"] == ["nearest_normal", "token_neighbours"]
    for part in ("training_data", "held_out_data"):
        assert card.training[part]["categories"] == PRODUCTS
    assert bundle_of_model(product_model) == NAME


def test_images_are_mapped_without_their_category(
    products: Path, product_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for product in PRODUCTS:  # no folder tells what is on them
        shutil.copy(products / product / "test/good/000.png", tmp_path / f"in/{product}.png")
    rows = infer(NAME, tmp_path / "in", product_model, tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {
        f"{product}.png": "done" for product in PRODUCTS
    }
    assert len(list((tmp_path / "out").glob("*.tiff"))) == 3


def test_evaluation_tells_each_product_their_mean_and_all_pooled(
    products: Path, product_model: Path, tmp_path: Path
) -> None:
    infer(NAME, products, product_model, tmp_path, config="evaluate.json", bootstrap=20)
    metrics = metrics_of(tmp_path)
    found = metrics["categories"]
    assert list(found) == [*PRODUCTS, "mean", "pooled"]
    for name in ("image_auroc", "pixel_ap", "aupro"):
        assert found["pooled"][name] == metrics[name]
        mean = sum(found[product][name] for product in PRODUCTS) / 3
        assert found["mean"][name] == pytest.approx(mean)
    assert not [remark for remark in metrics["remarks"] if "was trained on" in remark]


def test_a_product_that_is_not_tested_or_was_not_trained_is_told(
    products: Path, product_model: Path, tmp_path: Path
) -> None:
    for own, other in (("nut", "nut"), ("screw", "bolt")):
        shutil.copytree(products / own, tmp_path / "in" / other)
    infer(
        NAME, tmp_path / "in", product_model, tmp_path / "out", config="evaluate.json", bootstrap=20
    )
    remarks = metrics_of(tmp_path / "out")["remarks"]
    assert "The model was trained on screw, tile too: nothing of that was evaluated." in remarks
    assert any("not trained on bolt" in remark for remark in remarks)


@pytest.mark.parametrize("preset", ["gaussian", "dual_lite2"])
def test_other_methods_train_too(products: Path, tmp_path: Path, preset: str) -> None:
    state = train(NAME, products, tmp_path, preset=preset, **QUICK)
    assert bool(state["calibrated"])


# --- organs


def test_folders_of_prepared_slices_train_one_model(organs: Path, organ_model: Path) -> None:
    card = read_card(organ_model)
    assert card is not None
    assert card.preparation["size"] == SIZE
    assert list(card.preparation["caches"]) == ORGANS
    assert card.training["training_data"]["categories"] == ORGANS
    assert card.training["recipes"]["brain_mri"] == "volumes"


def test_their_evaluation_is_by_organ_and_pooled(
    organs: Path, organ_model: Path, tmp_path: Path
) -> None:
    detector = AnomalyDetector.load(organ_model, device="cpu")
    metrics = detector.evaluate(organs, output=tmp_path / "all", bootstrap=20)
    assert list(metrics["categories"]) == [*ORGANS, "mean", "pooled"]
    assert metrics["categories"]["pooled"]["pixel_auroc"] == metrics["pixel_auroc"]
    assert list(metrics["manifest"]["data"]["caches"]) == ORGANS
    assert metrics["seen_images"]["evaluated"] == len(metrics["studies"])
    assert metrics["seen_images"]["training"]["count"] == 0
    evaluate_model(organs / "liver_ct", organ_model, tmp_path / "one", bootstrap=20)
    one = metrics_of(tmp_path / "one")
    assert one["image_auroc"] == metrics["categories"]["liver_ct"]["image_auroc"]


def test_new_volumes_are_mapped_by_the_bundle_that_reads_them(
    organs: Path, organ_model: Path, tmp_path: Path
) -> None:
    brain = next((organs.parent / "source").rglob("*.nii.gz"))
    predictor = StudyPredictor(organ_model, bundle="multiad_brain_mri", device="cpu")
    result = predictor(str(brain), source=brain.parent, output_dir=tmp_path)
    assert result.map.shape == nib.load(brain).shape
    assert result.map.max() > 0
    assert result.score > 0


@pytest.mark.parametrize("name", ["retina_oct", ""])
def test_thresholds_are_set_anew_for_one_organ_or_for_all(
    organs: Path, organ_model: Path, tmp_path: Path, name: str
) -> None:
    new = read_card(recalibrate(organ_model, organs / name, output=tmp_path / "new.pt"))
    assert new is not None
    subjects = 2 if name else new.training["held_out_data"]["subjects"]
    assert new.calibration["subjects"] == subjects
    assert new.level(Level.PATIENT).units == subjects
    if not name:
        assert new.calibration["categories"] == ORGANS


def test_models_of_prepared_slices_refuse_what_they_cannot_prepare(
    products: Path, organs: Path, organ_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(MultiADError) as error:
        infer(NAME, products, organ_model, tmp_path / "out", size=None)
    assert isinstance(user_error(error.value), CardError)
    assert "none of them is named generalist" in str(user_error(error.value))
    assert "multiad_brain_mri" in str(user_error(error.value))
    with pytest.raises(CardError, match="none of them is named generalist"):
        AnomalyDetector.load(organ_model).predict(products / "nut/test/good/000.png")
    with pytest.raises(CardError, match='"multiad_generalist", asked for is "multiad_industrial"'):
        bundle_of_model(organ_model, "multiad_industrial")
    with pytest.raises(CardError, match="size 32, asked for is 64"):
        model_preparation(organ_model, domain="brain_mri", given={"size": 64}, defaults={})


def test_slices_prepared_otherwise_are_refused(
    organs: Path, organ_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(organs, tmp_path / "in")
    about = json.loads((tmp_path / "in/brain_mri/cache.json").read_text())
    about["settings"]["min_fraction"] = 0.9
    (tmp_path / "in/brain_mri/cache.json").write_text(json.dumps(about))
    with pytest.raises(CardError, match=r"min_fraction 0\.1, asked for is 0\.9"):
        evaluate_model(tmp_path / "in", organ_model, tmp_path / "out", bootstrap=20)
    about["size"] = [16, 16]
    (tmp_path / "in/brain_mri/cache.json").write_text(json.dumps(about))
    with pytest.raises(MultiADError) as error:
        train(NAME, tmp_path / "in", tmp_path / "models", size=None, **QUICK)
    assert isinstance(user_error(error.value), CacheError)
    assert "different sizes" in str(user_error(error.value))
