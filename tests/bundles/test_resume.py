"""A training that is killed goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from multiad_med.resources import bundle_path

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
