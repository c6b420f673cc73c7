"""`multiad evaluate` on prepared slices: from a model file to the report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from multiad_med.card import CardError, NotCalibratedError
from multiad_med.cli import app
from multiad_med.data import SliceCache
from multiad_med.evaluation.curves import training_curves
from multiad_med.evaluation.labelled import TrainedDetector, evaluate_model
from multiad_med.evaluation.manifest import run_manifest
from multiad_med.networks import build_multiad, open_model
from multiad_med.testing.slice_caches import make_cache
from multiad_med.training import calibrate, save_model
from multiad_med.utils.errors import InputError
from tests.evaluation.reports import Reader, rows_of

PRESET = "efficientnet_lite0_decoder"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "images")


@pytest.fixture
def model(cache: Path, tmp_path: Path) -> Path:
    """An untrained but calibrated network: metrics mean nothing, everything else does."""
    torch.manual_seed(0)
    network = build_multiad(PRESET, teacher_weights="random")
    batches = torch.utils.data.DataLoader(SliceCache(cache, split="validation"), batch_size=2)
    calibrate(network, batches)
    network.card.domain = "industrial"
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.slow
def test_command_writes_report_tables_and_metrics(cache: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "evaluation"
    result = CliRunner().invoke(
        app,
        ["evaluate", str(cache), "--model", str(model), "--output", str(output), "--bootstrap", "20"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "trivial baselines" in result.output
    assert "False alarms" in result.output
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["counts"] == {
        "patients": 8, "studies": 8, "slices": 8, "abnormal_slices": 4, "lesions": 4,
        "studies_without_distance": 0,
    }  # fmt: skip
    assert metrics["baselines"]["intensity"]["image_auroc"] == 1
    assert metrics["manifest"]["model"]["file"] == "model.pt"
    assert len(metrics["manifest"]["model"]["sha256"]) == 64
    assert metrics["manifest"]["data"]["recipe"] == "images"
    with (output / "slices.csv").open(newline="") as stream:
        assert [r["abnormal"] for r in csv.DictReader(stream)].count("True") == 4
    page = (output / "report.html").read_text()
    assert "not for diagnostic use" in page.lower()
    assert "screw/scratch" in page
    assert "image AUROC" in result.output
    assert not re.search("patient|lesion|slice", result.output)


@pytest.mark.slow
def test_a_report_on_images_speaks_of_images(cache: Path, model: Path, tmp_path: Path) -> None:
    evaluate_model(cache, model, tmp_path, bootstrap=5)
    reader = Reader((tmp_path / "report.html").read_text())
    assert "8 images · 4 abnormal images · 4 abnormal regions" in reader.text
    # Metrics of the machine-readable files keep their names, which the manifest lists.
    about_us = reader.text.partition("How the run was made")[0]
    words = [*reader.values("aria-label"), *reader.values("alt"), about_us]
    assert not re.search(r"patient|lesion|slice|scan|volume|hausdorff|hd95", " ".join(words), re.I)
    assert [row[0].split()[0] for row in rows_of(reader.page, "calibration")[1:]] == [
        "Pixels",
        "Images",
    ]
    assert not (tmp_path / "patients.csv").exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [({"labels": "**/*_seg*"}, "label_glob"), ({"image_glob": "*"}, "image_glob")],
)
def test_what_prepared_slices_cannot_heed_is_refused(
    cache: Path, model: Path, tmp_path: Path, given: dict[str, str], named: str
) -> None:
    with pytest.raises(InputError, match=f"prepared slices.*{named}"):
        evaluate_model(cache, model, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_part_is_half_of_the_test_set(cache: Path, model: Path, tmp_path: Path) -> None:
    evaluate_model(cache, model, tmp_path / "e", part="report", bootstrap=5)
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["counts"]["slices"] == 4


def test_slices_that_were_prepared_otherwise_are_refused_with_both_values(
    cache: Path, model: Path, tmp_path: Path
) -> None:
    network = open_model(model)
    save_model(network, tmp_path / "other.pt", card={"preparation": {"size": 999}})
    result = CliRunner().invoke(
        app,
        ["evaluate", str(cache), "--model", str(tmp_path / "other.pt"), "--output", str(tmp_path / "e")],
    )  # fmt: skip
    assert result.exit_code == 2
    assert "size 999" in result.output
    assert not (tmp_path / "e").exists()


@pytest.mark.slow
def test_slices_that_are_tiles_have_the_tiles_size(
    cache: Path, model: Path, tmp_path: Path
) -> None:
    side = SliceCache(cache, split="test").about["size"][0]
    card = {"preparation": {"size": 999, "tile": side}}
    save_model(open_model(model), tmp_path / "tiles.pt", card=card)
    assert evaluate_model(cache, tmp_path / "tiles.pt", tmp_path / "e", bootstrap=5).is_file()


def test_another_bundle_than_the_models_is_refused(model: Path, tmp_path: Path) -> None:
    save_model(open_model(model), tmp_path / "m.pt", card={"domain": "industrial"})
    with pytest.raises(CardError, match=r'"multiad_industrial".*"multiad_liver_ct"'):
        evaluate_model(tmp_path, tmp_path / "m.pt", tmp_path / "e", bundle="multiad_liver_ct")


def test_a_network_without_thresholds_is_refused() -> None:
    with pytest.raises(NotCalibratedError, match="not calibrated"):
        TrainedDetector(build_multiad(PRESET, teacher_weights="random"))


def test_parts_of_volumes_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Only prepared slices"):
        evaluate_model(tmp_path, model, tmp_path / "e", part="report")


@pytest.mark.parametrize("weight", [0.0, 0.01])
def test_a_discriminator_that_was_switched_off_has_no_charts(tmp_path: Path, weight: float) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as log:
        for step in range(3):
            scalars = {
                "loss": 1.0 + weight * step,
                "loss_distillation": 1.0,
                "loss_adversarial": weight * step,
                "loss_discriminator": 100 * weight,
                "discriminator_accuracy": 0.5,
            }
            for tag, value in scalars.items():
                log.add_scalar(tag, value, step)
    found = {curve.name for curve in training_curves(tmp_path)}
    assert found == (set(scalars) if weight else {"loss"})


def test_training_curves_are_read_from_the_log(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "log")) as writer:
        for step, value in enumerate([0.5, 0.25, 0.125], start=1):
            writer.add_scalar("train_loss", value, step)
    (curve,) = training_curves(tmp_path)
    assert (curve.name, curve.x, curve.y) == ("train_loss", [1, 2, 3], [0.5, 0.25, 0.125])
    with pytest.raises(ValueError, match="no TensorBoard log"):
        training_curves(tmp_path / "log" / "nothing")


def test_manifest_tells_two_configurations_apart() -> None:
    first, same, other = (
        run_manifest(data={}, config={"epochs": n}, seed=1)["config_sha256"] for n in (1, 1, 2)
    )
    assert first == same != other
