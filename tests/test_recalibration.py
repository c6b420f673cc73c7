"""Thresholds from further normal images: what changes in the model, and what does not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multiad_med import AnomalyDetector
from multiad_med.data.image_hashes import image_hash
from multiad_med.inference.quantisation import AccuracyLostError
from multiad_med.networks import open_model
from multiad_med.preparation import load_recipe, prepare
from multiad_med.recalibration import calibration_text, export_int8, recalibrate
from multiad_med.scoring import Level
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.layouts import picture, save_image
from multiad_med.utils.errors import InputError, MultiADError
from tests.bundles.models import infer, train

pytestmark = pytest.mark.slow

INDUSTRIAL, BRAIN = "multiad_industrial", "multiad_brain_mri"


def save_images(folder: Path, seeds: range, *, defect: bool = False) -> Path:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        save_image(folder / f"{seed}.png", picture(64, rng, defect=defect)[0])
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data`` (8 images), ``models``, ``good`` (20 further ones) and ``bad`` (5)."""
    folder = tmp_path_factory.mktemp("recalibration")
    save_images(folder / "data", range(8))
    save_images(folder / "good", range(100, 120))
    save_images(folder / "bad", range(200, 205), defect=True)
    train(INDUSTRIAL, folder / "data", folder / "models")
    return folder


def scores_of(model: Path, data: Path, out: Path) -> list[float]:
    return [row["score"] for row in infer(INDUSTRIAL, data, model, out).values()]


def test_thresholds_are_those_of_the_further_images_and_weights_stay(
    trained: Path, tmp_path: Path
) -> None:
    model = trained / "models/model.pt"
    target = recalibrate(model, trained / "good", rate=0.1, output=tmp_path / "new.pt")
    before, after = open_model(model), open_model(target)
    for name, value in before.state_dict().items():
        if name not in ("_extra_state", "pixel_threshold"):
            assert torch.equal(value, after.state_dict()[name]), name
    scores = scores_of(target, trained / "good", tmp_path / "maps")
    normals = after.card.level(Level.SLICE)
    assert sorted(normals.scores) == pytest.approx(sorted(scores), abs=1e-6)
    # floor(0.1 * 21) = 2: just above the second highest, which one of the twenty reaches.
    assert normals.threshold == pytest.approx(sorted(scores)[-2], abs=1e-6)
    assert int(normals.flagged(torch.tensor(normals.scores)).sum()) == 1
    assert normals.approximate == ""
    assert (normals.rate, after.card.level(Level.PATIENT).rate) == (0.1, 0.1)
    about = after.card.calibration
    assert (about["data"], about["subjects"], about["units"]) == ("good", 20, {"slice": 20})
    assert about["rates"] == {"pixel": pytest.approx(0.001), "slice": 0.1}
    assert len(after.card.image_hashes["calibration"]) == 20
    assert after.card.image_hashes["training"] == before.card.image_hashes["training"]
    assert (after.card.training, after.card.network) == (before.card.training, before.card.network)


def test_the_pixel_threshold_keeps_its_rate_on_the_further_images(
    trained: Path, tmp_path: Path
) -> None:
    import tifffile

    model = recalibrate(trained / "models/model.pt", trained / "good", output=tmp_path / "new.pt")
    infer(INDUSTRIAL, trained / "good", model, tmp_path / "maps")
    maps = np.stack([tifffile.imread(path) for path in (tmp_path / "maps").glob("*.tiff")])
    assert float((maps >= 0.5).mean()) == pytest.approx(0.001, abs=2e-4)


def test_bad_images_set_nothing_and_are_counted_at_each_rate(trained: Path, tmp_path: Path) -> None:
    model, good, bad = trained / "models/model.pt", trained / "good", trained / "bad"
    target = recalibrate(model, good, bad=bad, rate=0.1, output=tmp_path / "new.pt")
    alone = recalibrate(model, good, rate=0.1, output=tmp_path / "alone.pt")
    assert open_model(target).card.levels == open_model(alone).card.levels
    found = torch.tensor(scores_of(target, bad, tmp_path / "maps"))
    rows = open_model(target).card.calibration["thresholds_table"]["slice"]
    assert [row["rate"] for row in rows] == [0.1, 0.05]  # of 20 images no rate below 1 / 21
    for row in rows:
        assert row["anomalous"] == 5
        assert row["anomalous_above"] == float((found >= row["threshold"]).double().mean())
    text = calibration_text(target)
    assert re.search(r"\b20 normal images of good\b", text)
    assert "10 % (chosen)" in text
    assert "% of 5" in text


@pytest.fixture(scope="module")
def int8(trained: Path) -> Path:
    """The model of an INT8 export."""
    pytest.importorskip("nncf", reason="the extra `int8` is not installed")
    return export_int8(trained / "models/model.pt", trained / "int8/fast.xml", trained / "good")


def test_an_int8_export_has_thresholds_of_its_own_and_maps_by_it_alone(
    trained: Path, int8: Path, tmp_path: Path
) -> None:
    assert sorted(path.name for path in int8.parent.iterdir()) == [
        *("fast.bin", "fast.pt", "fast.xml"),
    ]
    card = open_model(int8).card
    assert card.calibration["runtime"] == "openvino_int8"
    assert card.calibration["accuracy_lost"]["images"] == 20
    assert card.calibration["units"] == {"slice": 20}
    maps = tmp_path / "maps"
    results = AnomalyDetector.load(int8, device="cpu", runtime="auto").predict_folder(
        trained / "good", output=maps
    )
    scores = {result.name: result for result in results}
    assert sorted(r.score for r in scores.values()) == pytest.approx(
        sorted(card.level(Level.SLICE).scores), abs=1e-3
    )
    assert {r.scores["settings"]["runtime"] for r in scores.values()} == {"openvino_int8"}
    before = scores_of(trained / "models/model.pt", trained / "good", tmp_path / "torch")
    assert sorted(before) != pytest.approx(sorted(r.score for r in scores.values()), abs=1e-6)


def test_thresholds_of_an_int8_export_are_for_nothing_else(
    trained: Path, int8: Path, tmp_path: Path
) -> None:
    for runtime in ("torch", "onnxruntime"):
        with pytest.raises(InputError, match=r"fast\.pt were set for its INT8 export"):
            AnomalyDetector.load(int8, device="cpu", runtime=runtime)
    with pytest.raises(InputError, match=r"is the model itself"):
        export_int8(int8, int8.with_suffix(".xml"), trained / "good")
    image = next((trained / "good").iterdir())
    for damage, reason in (
        (lambda file: file.unlink(), "fast.xml, which is not beside it"),
        (lambda file: file.write_bytes(file.read_bytes() + b" "), "is not the export that"),
    ):
        folder = tmp_path / reason[:4]
        shutil.copytree(int8.parent, folder)
        damage(folder / "fast.xml")
        detector = AnomalyDetector.load(folder / "fast.pt", device="cpu", runtime="auto")
        with pytest.raises(MultiADError, match=reason):
            detector.predict(image)


def test_an_int8_export_that_finds_less_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = pytest.importorskip("openvino", reason="the extra `int8` is not installed").opset13

    def damaged(model: Any, *_: Any, **__: Any) -> Any:
        rng = np.random.default_rng(0)
        for op in model.get_ordered_ops():
            if op.get_type_name() == "Convolution":
                kernel = op.input(1)
                noise = rng.normal(size=tuple(kernel.get_shape())).astype(np.float32)
                kernel.replace_source_output(ops.constant(noise).output(0))
        return model

    monkeypatch.setattr("multiad_med.inference.quantisation._quantise", damaged)
    with pytest.raises(AccuracyLostError, match=r"image AUROC falls by .*20 normal images"):
        export_int8(trained / "models/model.pt", tmp_path / "fast.xml", trained / "good")
    assert not list(tmp_path.iterdir())


def test_a_rate_out_of_reach_gives_no_verdict_and_says_so(trained: Path, tmp_path: Path) -> None:
    few = save_images(tmp_path / "few", range(100, 106))
    target = recalibrate(trained / "models/model.pt", few, rate=0.01, output=tmp_path / "new.pt")
    assert open_model(target).card.level(Level.SLICE).anomalous(1.0) is None
    assert open_model(target).card.level(Level.SLICE).p_value(1.0) == pytest.approx(1 / 7)
    expected = r"no verdict: 6 normal images\b.*\b14 %.*\b99\b.*\b1 %"
    assert re.search(expected, calibration_text(target))


def test_images_of_the_training_are_refused_by_name(trained: Path, tmp_path: Path) -> None:
    mixed = save_images(tmp_path / "mixed", range(100, 104))
    trained_on = set(open_model(trained / "models/model.pt").card.image_hashes["training"])
    assert len(trained_on) == 7  # one is held out
    for path in (trained / "data").iterdir():
        shutil.copy(path, mixed / f"copy_{path.name}")
    with pytest.raises(InputError, match=r"\b7 of 12 images\b.*trained on: copy_"):
        recalibrate(trained / "models/model.pt", mixed, output=tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()


def test_images_that_were_held_out_make_p_values_approximate(trained: Path, tmp_path: Path) -> None:
    held_out = open_model(trained / "models/model.pt").card.image_hashes["held_out"]
    data = save_images(tmp_path / "again", range(100, 104))
    for path in (trained / "data").iterdir():
        if image_hash({"image": str(path)}) in held_out:
            shutil.copy(path, data / "held_out.png")
    target = recalibrate(trained / "models/model.pt", data, output=tmp_path / "new.pt")
    assert "fusion's scale" in open_model(target).card.level(Level.SLICE).approximate
    assert "Approximate: " in calibration_text(target)


def test_nothing_is_replaced_unless_it_is_named(trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    shutil.copy(trained / "models/model.pt", model)
    before = model.read_bytes()
    assert recalibrate(model, trained / "good") == tmp_path / "model-calibrated.pt"
    assert model.read_bytes() == before
    with pytest.raises(InputError, match=r"model-calibrated\.pt exists"):
        recalibrate(model, trained / "good")
    assert recalibrate(model, trained / "good", output=model) == model
    assert open_model(model).card.level(Level.SLICE).units == 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model-calibrated.pt", "model.pt"]


def test_anomalous_images_among_the_good_ones_are_told_and_left_out(
    trained: Path, tmp_path: Path
) -> None:
    data = tmp_path / "in"
    save_images(data / "good", range(100, 104))
    save_images(data / "scratch", range(200, 202), defect=True)
    with pytest.warns(UserWarning, match=r"\b2 of 6 images\b.*anomalous.*left out"):
        target = recalibrate(trained / "models/model.pt", data, output=tmp_path / "new.pt")
    assert open_model(target).card.level(Level.SLICE).units == 4


def test_held_out_slices_of_a_cache_calibrate_and_are_known_by_their_files(
    trained: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("images", {"size": 64})
    prepare(recipe, trained / "good", tmp_path / "slices", workers=0, progress=False)
    target = recalibrate(trained / "models/model.pt", tmp_path / "slices", output=tmp_path / "a.pt")
    card = open_model(target).card
    assert card.level(Level.SLICE).units == 4  # a fifth of twenty is for calibration
    names = recipe.splits(trained / "good")["validation"]
    assert card.image_hashes["calibration"] == sorted(map(image_hash, names))
    with pytest.raises(InputError, match="give the anomalous images"):
        recalibrate(target, trained / "good", bad=tmp_path / "slices", output=tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0}, r"rate must lie in \(0, 1\)"),
        ({"good": "nowhere"}, "does not exist"),
    ],
)
def test_what_cannot_be_used_is_refused(
    trained: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    arguments = {"good": trained / "good", "output": tmp_path / "new.pt", **options}
    with pytest.raises(InputError, match=message):
        recalibrate(trained / "models/model.pt", **arguments)
    assert not (tmp_path / "new.pt").exists()


def test_a_model_that_was_not_calibrated_again_has_nothing_to_tell(trained: Path) -> None:
    with pytest.raises(InputError, match="was not calibrated after its training"):
        calibration_text(trained / "models/model.pt")


def brains(folder: Path, seeds: range, *, lesion: bool = False) -> Path:
    for seed in seeds:
        volume = head(np.random.default_rng(seed), (40, 48, 6))
        if lesion:
            volume[16:26, 18:30, 2:4] = 1500
        write_nifti(folder / f"s{seed}.nii.gz", volume, np.diag([4.0, 4, 8, 1]))
    return folder


def test_volumes_and_patients_are_units_of_their_own(tmp_path: Path) -> None:
    train(BRAIN, brains(tmp_path / "data", range(5)), tmp_path / "models")
    good, bad = brains(tmp_path / "good", range(10, 20)), tmp_path / "bad"
    brains(bad, range(20, 23), lesion=True)
    target = recalibrate(tmp_path / "models/model.pt", good, bad=bad, rate=0.1)
    card = open_model(target).card
    rows = infer(BRAIN, good, target, tmp_path / "maps")
    scores = sorted(row["score"] for row in rows.values())
    assert sorted(card.level(Level.VOLUME).scores) == pytest.approx(scores, abs=1e-6)
    assert card.level(Level.SLICE).units > 10
    assert card.calibration["units"] == {"volume": 10}
    (row,) = card.calibration["thresholds_table"]["volume"]
    found = [r["score"] for r in infer(BRAIN, bad, target, tmp_path / "bad_maps").values()]
    assert row["anomalous_above"] == np.mean(np.array(found) >= row["threshold"])
    assert "10 normal volumes of good" in calibration_text(target)
    content = json.loads(json.dumps(card.as_json()))
    assert content["calibration"]["rates"] == {"pixel": pytest.approx(0.001), "volume": 0.1}
