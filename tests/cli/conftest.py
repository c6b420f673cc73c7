"""A model that the command trained, for the commands that need one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multiad_med.testing.brains import head, write_nifti
from tests.cli.runs import multiad

AFFINE = np.diag([4.0, 4.0, 8.0, 1.0])


def write_heads(folder: Path, count: int, *, seed: int = 0) -> Path:
    """A folder of normal brains."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        write_nifti(folder / f"s{index}.nii.gz", head(rng), AFFINE)
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``multiad train`` leaves."""
    folder = tmp_path_factory.mktemp("cli")
    result = multiad(
        *("train", "brain_mri", write_heads(folder / "normal", 6), "-o", folder / "run"),
        *("--set", "size=64", "--set", "max_epochs=1", "--device", "cpu", "--seed", 3),
        *("--rate", 0.2),
    )
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def model(run_folder: Path) -> Path:
    """The model of :func:`run_folder`."""
    return run_folder / "model.pt"
