"""Evaluated images that the model was trained on are told."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from multiad_med.card import ModelCard
from multiad_med.evaluation import evaluate_cases
from multiad_med.evaluation.labelled import evaluate_model
from multiad_med.evaluation.seen_images import hashes_of, note_seen_images
from multiad_med.preparation import load_recipe, prepare
from multiad_med.testing.brains import make_brains
from multiad_med.testing.layouts import make_mvtec
from multiad_med.testing.slice_caches import volume_case
from tests.bundles.models import train

BUNDLE = "multiad_industrial"


def test_one_warning_has_counts_and_first_names() -> None:
    hashes = {f"in/{name}.png": name * 16 for name in "abcdefgh"}
    known = {"training": [hashes[f"in/{n}.png"] for n in "bcdef"], "held_out": ["h" * 16]}
    evaluation = evaluate_cases([volume_case("a", lesion=True)], bootstrap=5)
    with pytest.warns(UserWarning, match="trained on") as caught:
        note_seen_images(evaluation, ModelCard(image_hashes=known), hashes)
    (warning,) = caught
    told = str(warning.message)
    assert re.search(r"\b5 of 8\b.*trained on: b\.png, c\.png, d\.png and 2 more", told)
    assert re.search(r"\b1 of 8\b.*held out", told)
    assert evaluation.remarks[0] == str(warning.message)
    seen = evaluation.as_json()["seen_images"]
    assert seen["training"] == {"count": 5, "first": [f"in/{n}.png" for n in "bcdef"]}
    assert (seen["evaluated"], seen["held_out"]["count"], seen["calibration"]["count"]) == (8, 1, 0)


def test_nothing_is_told_of_new_images_or_by_an_older_model(tmp_path: Path) -> None:
    evaluation = evaluate_cases([volume_case("a", lesion=True)], bootstrap=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_seen_images(evaluation, ModelCard(image_hashes={"training": ["x"]}), {"a": "y"})
        assert evaluation.seen_images["training"] == {"count": 0, "first": []}
        evaluation.seen_images = {}
        note_seen_images(evaluation, ModelCard(), {"a": "y"})
    assert evaluation.seen_images == {}
    assert hashes_of([{"image": str(tmp_path / "gone.png")}]) == {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``mvtec``, ``slices`` prepared from it, and a model of each."""
    folder = tmp_path_factory.mktemp("seen")
    make_mvtec(folder / "mvtec", rng=np.random.default_rng(0), size=64, train=6, categories=["nut"])
    recipe = load_recipe("mvtec_ad", {"size": 64})
    prepare(recipe, folder / "mvtec", folder / "slices", workers=0, progress=False)
    train(BUNDLE, folder / "mvtec", folder / "of_files")
    train(BUNDLE, folder / "slices", folder / "of_slices")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", ["of_files", "of_slices"])
@pytest.mark.parametrize("data", ["mvtec", "slices"])
def test_a_training_image_in_the_test_is_recognised_by_its_bytes(
    trained: Path, tmp_path: Path, model: str, data: str
) -> None:
    shutil.copytree(trained / "mvtec", tmp_path / "mvtec")
    for path in (tmp_path / "mvtec/nut/train/good").iterdir():
        shutil.copy(path, tmp_path / "mvtec/nut/test/good" / f"copy_{path.name}")
    file = trained / model / "model.pt"
    source = tmp_path / data
    if data == "slices":
        recipe = load_recipe("mvtec_ad", {"size": 64})
        prepare(recipe, tmp_path / "mvtec", source, workers=0, progress=False)
    with pytest.warns(UserWarning, match=r"\b5 of 11\b.*trained on: "):
        evaluate_model(source, file, tmp_path / "out", bootstrap=5)
    seen = json.loads((tmp_path / "out/metrics.json").read_text())["seen_images"]
    assert (seen["training"]["count"], seen["held_out"]["count"]) == (5, 1)


@pytest.mark.slow
def test_a_training_volume_in_the_test_is_recognised(tmp_path: Path) -> None:
    folder = make_brains(tmp_path)
    train("multiad_brain_mri", folder, tmp_path / "models")
    items = [
        {
            "image": f"images/s{image}.nii.gz",
            "label": f"labels/s{label}.nii.gz",
            "subject": f"s{image}",
        }
        for image, label in ((0, 4), (5, 5))
    ]
    (folder / "again.json").write_text(json.dumps({"test": items}))
    with pytest.warns(UserWarning, match=r"\b1 of 2\b.*trained on: s0\."):
        evaluate_model(
            folder / "again.json", tmp_path / "models/model.pt", tmp_path / "out", bootstrap=5
        )
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["seen_images"]["training"]["first"] == [str(folder / "images/s0.nii.gz")]
    assert metrics["seen_images"]["training"]["count"] == 1
    assert {"slice", "volume"} == metrics["thresholds_table"].keys()
