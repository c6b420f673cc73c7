"""A bundle's training in two processes equals that in one with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from multiad_med.data import ShardSampler, SliceCache
from multiad_med.networks import read_card
from multiad_med.preparation import load_recipe, prepare
from multiad_med.resources import bundle_path, bundles_dir
from multiad_med.scoring import Level

CONFIGS = bundle_path("multiad_brain_mri") / "configs"


def _losses(folder: Path) -> list[float]:
    """Of each iteration, as TensorBoard has them; one process alone writes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = [EventAccumulator(str(f)).Reload() for f in sorted(folder.glob("events.*"))]
    found = [log for log in logs if "discriminator_accuracy" in log.Tags()["scalars"]]
    assert len(found) == 1
    return [event.value for event in found[0].Scalars("loss_distillation")]


def _train(
    data: Path, folder: Path, launcher: list[str], config: str, batch_size: int, memory: float
) -> None:
    subprocess.run(
        [
            *launcher,
            "-m",
            "monai.bundle",
            "run",
            "training",
            *("--bundle_root", str(CONFIGS.parent)),
            *("--config_file", config),
            *("--logging_file", str(CONFIGS / "logging.conf")),
            *("--dataset_dir", str(data)),
            *("--ckpt_dir", str(folder / "models")),
            *("--output_dir", str(folder / "out")),
            *("--max_epochs", "2"),
            *("--size", "64"),
            *("--slice_memory", str(memory)),
            *("--batch_size", str(batch_size)),
            # No dropout in the paper's student; Adam and large steps make much of rounding.
            *("--learning_rate", "0.0001"),
            *("--preset", "efficientnet_lite0"),
            *("--optimizer#_target_", "torch.optim.SGD"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=data.parent,
        check=True,
        timeout=300,
    )


@pytest.mark.parametrize("bundle", sorted(p.parent.name for p in bundles_dir().glob("*/configs")))
def test_one_process_alone_logs(bundle: str) -> None:
    configs = bundle_path(bundle) / "configs"
    train, more = (
        json.loads((configs / f"{name}.json").read_text()) for name in ("train", "multi_gpu_train")
    )
    assert (train["main_process"], more["main_process"]) == (True, "$dist.get_rank() == 0")
    for handler in train["train"]["handlers"] + train["validate"]["handlers"]:
        logs = any(w in handler["_target_"] for w in ("EpochLog", "TensorBoard", "ProgressBar"))
        assert (handler.get("_disabled_") == "$not @main_process") == logs, handler


@pytest.fixture
def slices(cohort: Path, tmp_path: Path) -> Path:
    """The cohort, prepared."""
    shares = {"training": 0.5, "validation": 0.25, "test": 0.25}
    recipe = load_recipe("volumes", {"size": 64, **shares})
    prepare(recipe, cohort, tmp_path / "slices", workers=0, progress=False)
    return tmp_path / "slices"


@pytest.mark.parametrize(
    ("source", "memory", "rounding"), [("cohort", 1, 1e-5), ("slices", 1e-4, 5e-5)]
)
def test_losses_and_model_equal_those_of_one_process(
    source: str, memory: float, rounding: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(source)
    if source == "slices":
        cache = SliceCache(data, split="training")
        assert ShardSampler(cache, memory=memory, num_replicas=1, rank=0).streams
    one, two = tmp_path / "one", tmp_path / "two"
    train, more = (str(CONFIGS / f"{name}.json") for name in ("train", "multi_gpu_train"))
    _train(data, one, [sys.executable], train, 8, memory)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    _train(data, two, torchrun, f"['{train}','{more}']", 4, memory)

    losses = _losses(one / "out")
    assert len(losses) >= 4
    assert _losses(two / "out") == pytest.approx(losses, abs=rounding)
    alone, both = (
        torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (one, two)
    )
    for key in ("pixel_threshold", "fusion.levels.0.knots"):
        torch.testing.assert_close(both[key], alone[key], rtol=1e-2, atol=1e-4)
    cards = [read_card(folder / "models" / "model.pt") for folder in (one, two)]
    # The two share the held-out slices, and each draws its own anomalies.
    tested = [card.self_test for card in cards if card]
    assert [found.images for found in tested if found] == [tested[0].images] * 2
    for level in Level:
        expected, found = (card.level(level).scores for card in cards if card)
        assert found == pytest.approx(expected, rel=1e-3), level
