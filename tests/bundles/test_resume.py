"""A training that is killed goes on where it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DistributedSampler

from multiad_med.data import ShardSampler
from multiad_med.preparation import load_recipe, prepare
from multiad_med.resources import bundle_path
from multiad_med.testing.brains import head, make_brains, write_nifti
from multiad_med.training import CheckpointError
from tests.bundles.models import train

ROOT = bundle_path("multiad_brain_mri")
CONFIGS = ROOT / "configs"


def _command(data: Path, folder: Path, epochs: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "training",
        "--bundle_root",
        str(ROOT),
        "--config_file",
        str(CONFIGS / "train.json"),
        "--logging_file",
        str(CONFIGS / "logging.conf"),
        "--dataset_dir",
        str(data),
        "--ckpt_dir",
        str(folder / "models"),
        "--output_dir",
        str(folder / "out"),
        "--max_epochs",
        str(epochs),
        "--batch_size",
        "4",
        "--size",
        "64",
        "--adversarial_weight",
        "0.01",
        "--light_augmentation",
        "True",
    ]


def test_training_killed_and_resumed_ends_as_one_left_alone(cohort: Path, tmp_path: Path) -> None:
    """From the command line, in another working directory, with SIGKILL in mid-epoch."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    options: dict[str, Any] = {
        "env": env,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    subprocess.run(_command(cohort, alone, 6), cwd=alone, check=True, timeout=300, **options)

    process = subprocess.Popen(_command(cohort, killed, 6), cwd=killed, **options)
    checkpoint = killed / "models" / "checkpoint.pt"
    deadline = time.time() + 240
    while not checkpoint.is_file() and time.time() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "models" / "model.pt").exists()
    epoch = torch.load(checkpoint, weights_only=True)["trainer"]["epoch"]
    assert 1 <= epoch < 6
    subprocess.run(_command(cohort, killed, 6), cwd=killed, check=True, timeout=300, **options)

    first, second = (
        torch.load(f / "models" / "model.pt", weights_only=True) for f in (alone, killed)
    )
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.slow
def test_shards_of_slices_are_resumed_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared slices that exceed the memory; interrupted between the first two of three epochs."""
    shares = {"training": 0.5, "validation": 0.25, "test": 0.25}
    recipe = load_recipe("volumes", {"size": 32, **shares})
    data = tmp_path / "slices"
    prepare(recipe, make_brains(tmp_path), data, workers=0, progress=False)
    given: dict[str, Any] = {"slice_memory": 4e-5, "max_epochs": 3, "size": 32}
    alone, interrupted = tmp_path / "alone", tmp_path / "interrupted"
    seen: list[ShardSampler] = []

    def stop(sampler: ShardSampler, epoch: int) -> None:
        seen.append(sampler)
        DistributedSampler.set_epoch(sampler, epoch)
        if epoch == 2:
            raise KeyboardInterrupt

    train("multiad_brain_mri", data, alone, **given)
    with monkeypatch.context() as patched:
        patched.setattr(ShardSampler, "set_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            train("multiad_brain_mri", data, interrupted, **given)
    assert seen[0].streams
    assert len(seen[0].shards()) > 2
    assert not (interrupted / "model.pt").exists()
    train("multiad_brain_mri", data, interrupted, **given)
    first, second = (
        torch.load(folder / "model.pt", weights_only=True) for folder in (alone, interrupted)
    )
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"fused": [1, 2]}, r"network\.fused .*\[2, 3\].*\[1, 2\]"),
        ({"learning_rate": 0.001}, r"learning_rate .*0\.004.*0\.001"),
        ({"light_augmentation": True}, "light_augmentation .*false.*true"),
        ({"size": 96}, r"preparation\.size .*\b64\b.*\b96\b"),
        ({"min_fraction": 0.2}, r"preparation\.min_fraction .*0\.1.*0\.2"),
        ({"dataset_dir": "other"}, "training_data"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_training_is_not_resumed_with_changed_settings(
    override: dict[str, Any], message: str, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, models = trained
    if "dataset_dir" in override:
        other = tmp_path / "other"
        shutil.copytree(data, other)
        write_nifti(other / "images" / "s0.nii.gz", head(np.random.default_rng(9), (40, 48, 12)))
        data = other
    before = (models / "model.pt").read_bytes()
    others = {key: value for key, value in override.items() if key != "dataset_dir"}
    with pytest.raises(CheckpointError, match=message) as error:
        train("multiad_brain_mri", data, models, **others)
    assert "resume to false" in str(error.value)
    assert (models / "model.pt").read_bytes() == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cohort, and the folder of a finished training on it."""
    folder = tmp_path_factory.mktemp("resume")
    data = make_brains(folder)
    train("multiad_brain_mri", data, folder / "models")
    return data, folder / "models"
