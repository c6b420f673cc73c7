"""Two students in the bundles: from training to scores, and what can go wrong on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from ignite.engine import Events

from multiad_med import AnomalyDetector
from multiad_med.networks import (
    DinoFeatures,
    NoisyOrLoss,
    VisionTransformerSize,
    open_model,
    read_card,
)
from multiad_med.resources import bundle_path, bundle_workflow, presets
from multiad_med.scoring import Level
from multiad_med.testing.brains import head, write_nifti
from multiad_med.testing.cohorts import COHORTS, FAST, bundle_names
from multiad_med.testing.layouts import make_mvtec, save_image
from multiad_med.testing.layouts.shapes import texture
from multiad_med.utils.errors import InputError, user_error
from tests.bundles.models import infer, train

HERE = __name__
TINY: dict[str, Any] = {
    "preset": "dual_lite2",
    "teacher_weights": "random",
    "score_fraction": 0.0,
}


class TinyDino(DinoFeatures):
    """A teacher that is built without arguments."""

    def __init__(self) -> None:
        super().__init__(VisionTransformerSize(dim=32, depth=4, heads=2, registers=4, grid=4))


VIT: dict[str, Any] = {
    "preset": "dual_dinov2_s",
    "network_def#teacher": f"{HERE}.TinyDino",
    "size": 56,
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_bundle_has_the_presets() -> None:
    for bundle in bundle_names():
        assert {"dual_lite2", "dual_dinov2_s", "dual_dinov2_b", "dinomaly"} <= set(presets(bundle))
        for name in ("dual_lite2", "dual_dinov2_s", "dual_dinov2_b", "dinomaly"):
            assert (bundle_path(bundle) / f"configs/{name}.json").is_file()


@pytest.mark.parametrize("bundle", ["multiad_brain_mri", "multiad_industrial"])
def test_training_prediction_and_report(bundle: str, tmp_path: Path) -> None:
    data = COHORTS[bundle](tmp_path)
    images = bundle == "multiad_industrial"
    more = {"validation_fraction": 0.3, "self_test": True} if images else {}
    state = train(bundle, data, tmp_path / "run", **TINY, **more)
    model = tmp_path / "run/model.pt"
    card = read_card(model)
    assert card is not None
    told = {
        k: card.network[k] for k in ("preset", "student", "stages", "fused", "fusion", "experts")
    }
    assert told == {
        "preset": "dual_lite2",
        "student": "dual",
        "stages": [1, 2, 3, 5],
        "fused": [1, 2, 5],
        "fusion": "hazard",
        "experts": [],
    }
    assert card.training["preset"] == "dual_lite2"
    assert card.training["semantic_learning_rate"] == 0.0005
    assert (card.self_test is not None) == images
    network = open_model(model).eval()
    assert all(
        torch.equal(v, state[k]) for k, v in network.state_dict().items() if k != "_extra_state"
    )
    assert network.strides == (4, 8, 16, 0)

    rows = infer(bundle, data, model, tmp_path / "out", config="evaluate.json", bootstrap=20)
    assert {row["status"] for row in rows.values()} == {"done"}
    assert json.loads((tmp_path / "out/metrics.json").read_text())
    semantic = []
    for path in (tmp_path / "out").rglob("*_anomaly.json"):
        found = json.loads(path.read_text())
        for part in (found, *found["slices"]):
            local, whole = part["local_probability"], part["semantic_probability"]
            assert part["joint_probability"] == pytest.approx(
                1 - (1 - local) * (1 - whole), abs=1e-5
            )
            semantic.append(whole)
    assert max(semantic) > 0
    # The map is of places alone: its highest value is the local part.
    for row in rows.values():
        file = tmp_path / "out" / row["map"]
        values = tifffile.imread(file) if file.suffix == ".tiff" else nib.load(file).get_fdata()
        assert np.squeeze(values).ndim == (2 if file.suffix == ".tiff" else 3)
        assert values.max() < 1
        assert values.std() > 0


def _workflow(data: Path, run: Path, **given: Any) -> Any:
    settings = {**FAST, **TINY, "batch_size": 4, "self_test": False, "max_epochs": 2, **given}
    flow = bundle_workflow(
        "multiad_brain_mri",
        "train.json",
        workflow_type="train",
        dataset_dir=str(data),
        ckpt_dir=str(run),
        output_dir=str(run),
        **settings,
    )
    flow.initialize()
    return flow


class _StopError(Exception):
    pass


@pytest.mark.parametrize("preset", ["dual_lite2", "dual_dinov2_s"])
def test_an_interrupted_training_ends_as_one_left_alone(
    preset: str, cohort: Path, tmp_path: Path
) -> None:
    """Weights, usual distances and the ramp of easy places, bit by bit."""
    given = {} if preset == "dual_lite2" else VIT
    losses = []
    for name in ("alone", "stopped"):
        flow = _workflow(cohort, tmp_path / name, **given)
        if name == "stopped":

            def stop(engine: Any) -> None:
                if engine.state.epoch == 2:
                    raise _StopError

            trainer = flow.parser.get_parsed_content("train#trainer")
            trainer.add_event_handler(Events.ITERATION_COMPLETED, stop)
            with pytest.raises(RuntimeError):  # MONAI's, from ours
                flow.run()
            assert not (tmp_path / name / "model.pt").exists()
            flow.finalize()
            flow = _workflow(cohort, tmp_path / name, **given)
        flow.run()
        losses.append(flow.parser.get_parsed_content("loss").state_dict())
        flow.finalize()
    first, second = (
        torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("alone", "stopped")
    )
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert losses[0].keys() == losses[1].keys() >= {"tau", "steps"}
    assert int(losses[0]["steps"]) > 2
    assert not torch.equal(losses[0]["tau"], torch.ones(2))
    for key, value in losses[0].items():
        assert torch.equal(value, losses[1][key]), key


def test_a_vision_transformer_of_ones_own_trains_and_maps(cohort: Path, tmp_path: Path) -> None:
    before = _workflow(cohort, tmp_path / "unused", **VIT)
    start = {
        k: v.clone() for k, v in before.parser.get_parsed_content("network").state_dict().items()
    }
    before.finalize()
    state = train("multiad_brain_mri", cohort, tmp_path / "run", **{**VIT, "max_epochs": 1})
    card = read_card(tmp_path / "run/model.pt")
    assert card is not None
    assert card.network["teacher"] == f"{HERE}.TinyDino"
    assert card.network["stages"] == card.network["fused"] == [1, 2, 3]
    assert card.network["recentred"] is True
    moved = {
        part: any(
            not torch.equal(v, start[k])
            for k, v in state.items()
            if k.startswith(f"student.{part}.")
        )
        for part in ("local.narrow", "local.bottleneck", "local.blocks", "semantic")
    }
    assert all(moved.values()), moved
    rows = infer(
        "multiad_brain_mri", cohort, tmp_path / "run/model.pt", tmp_path / "out", size=None
    )
    assert {row["status"] for row in rows.values()} == {"done"}


def test_two_processes_have_the_same_usual_distances(cohort: Path, tmp_path: Path) -> None:
    """Of the mean over both, since the first step sets them; the students are averaged too."""
    configs = bundle_path("multiad_brain_mri") / "configs"
    files = [str(configs / f"{n}.json") for n in ("train", "dual_lite2", "multi_gpu_train")]
    script = tmp_path / "both.py"
    script.write_text(
        "import torch, torch.distributed as dist\n"
        "from monai.bundle import ConfigWorkflow\n"
        "torch.set_num_threads(1)\n"
        f"flow = ConfigWorkflow(workflow_type='train', config_file={files!r}, logging_file=False,\n"
        f"    bundle_root={str(configs.parent)!r}, dataset_dir={str(cohort)!r}, size=64,\n"
        f"    ckpt_dir={str(tmp_path / 'run')!r}, output_dir={str(tmp_path / 'run')!r},\n"
        "    batch_size=4, max_epochs=1, self_test=False, teacher_weights='random',\n"
        "    device=\"$torch.device('cpu')\")\n"
        "flow.initialize()\n"
        "flow.run()\n"
        "loss = flow.parser.get_parsed_content('loss')\n"
        "student = flow.parser.get_parsed_content('network').student\n"
        "weights = torch.cat([p.detach().flatten() for p in student.parameters()])\n"
        f"torch.save([loss.state_dict(), weights], {str(tmp_path)!r} + f'/{{dist.get_rank()}}.pt')\n"
        "flow.finalize()\n"
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run([sys.executable, *launcher, str(script)], check=True, timeout=300, cwd=tmp_path)
    (one, weights), (two, others) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert int(one["steps"]) >= 1
    assert not torch.equal(one["tau"], torch.ones(2))
    for key, value in one.items():
        assert torch.equal(value, two[key]), key
    assert torch.equal(weights, others)
    assert (tmp_path / "run/model.pt").is_file()


def test_three_categories_train_one_model(tmp_path: Path) -> None:
    names = ["bottle", "cable", "screw"]
    make_mvtec(
        tmp_path / "data",
        rng=np.random.default_rng(0),
        categories=names,
        size=64,
        train=5,
        good=1,
        defects={"scratch": 1},
    )
    train("multiad_industrial", tmp_path / "data", tmp_path / "run", **TINY)
    rows = infer(
        "multiad_industrial",
        tmp_path / "data",
        tmp_path / "run/model.pt",
        tmp_path / "out",
        config="evaluate.json",
        bootstrap=20,
    )
    assert {row["status"] for row in rows.values()} == {"done"}
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == names


def test_a_volume_wider_than_high_keeps_its_grid(tmp_path: Path) -> None:
    for seed in range(3):
        volume = head(np.random.default_rng(seed), (56, 28, 6))
        write_nifti(tmp_path / "in" / f"{seed}.nii.gz", volume, np.diag([3.0, 3.0, 8.0, 1.0]))
    train("multiad_brain_mri", tmp_path / "in", tmp_path / "run", **{**TINY, "size": [96, 64]})
    rows = infer(
        "multiad_brain_mri", tmp_path / "in", tmp_path / "run/model.pt", tmp_path / "out", size=None
    )
    assert len(rows) == 3
    for row in rows.values():
        heat = nib.load(tmp_path / "out" / row["map"])
        assert heat.shape == (56, 28, 6)
        assert heat.get_fdata().std() > 0


def _five_images(folder: Path) -> Path:
    for seed in range(5):
        values = 120 + 20 * texture((64, 64), np.random.default_rng(seed))
        save_image(folder / f"{seed}.png", values)
    return folder


def test_five_images_of_which_one_is_held_out_are_refused_at_once(tmp_path: Path) -> None:
    """A token has one distance then, which is no scale."""
    message = "needs at least 2 held-out normal images.*and has 1. Give more normal images"
    with pytest.raises(Exception, match=message) as error:
        train("multiad_industrial", _five_images(tmp_path / "in"), tmp_path / "run", **TINY)
    assert isinstance(user_error(error.value), InputError)
    assert not (tmp_path / "run/checkpoint.pt").exists()


def test_five_images_of_which_two_are_held_out_train(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="multiad_med"):
        state = train(
            "multiad_industrial",
            _five_images(tmp_path / "in"),
            tmp_path / "run",
            **TINY,
            validation_fraction=0.4,
        )
    assert all(bool(v.isfinite().all()) for v in state.values() if v.is_floating_point())
    told = [r.getMessage() for r in caplog.records]
    assert any("Few normal images in training (3)" in line for line in told)
    assert any("Only 2 held-out normal images" in line for line in told)


def test_a_loss_of_two_students_without_a_token_is_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"needs feature maps and, last, a token") as error:
        train(
            "multiad_brain_mri",
            cohort,
            tmp_path,
            **{**TINY, "network_def#stages": [1, 2, 3], "network_def#fused": [1, 2]},
        )
    assert isinstance(user_error(error.value), InputError)


def test_the_detector_takes_the_preset(cohort: Path, tmp_path: Path) -> None:
    detector = AnomalyDetector(
        "brain_mri", device="cpu", **TINY, size=64, batch_size=4, max_epochs=1, self_test=False
    ).fit(cohort, output=tmp_path / "run")
    assert detector.card.level(Level.SLICE).units > 0
    workflow = bundle_workflow(
        "multiad_brain_mri", "train.json", workflow_type="train", dataset_dir=str(cohort), **TINY
    )
    workflow.initialize()
    loss = workflow.parser.get_parsed_content("loss")
    assert isinstance(loss, NoisyOrLoss)
    assert loss.local.hardest == 0.1
    groups = workflow.parser.get_parsed_content("optimizer").param_groups
    assert [g["weight_decay"] for g in groups] == [0.0, 0.05]
    workflow.finalize()
    result = detector.predict(next(cohort.rglob("s5.nii.gz")))
    assert 0 <= result.score < 1
