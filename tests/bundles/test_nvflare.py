"""The NVFlare job of docs/examples/nvflare runs in NVFlare's simulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bundles.test_federated import make_sites

pytest.importorskip("nvflare", reason="needs the extra `federated`")

JOB = Path(__file__).parents[2] / "docs" / "examples" / "nvflare" / "job.py"


def test_the_servers_model_is_the_weighted_mean_of_its_sites(tmp_path: Path) -> None:
    sites = make_sites(tmp_path)
    command = [
        sys.executable,
        str(JOB),
        str(tmp_path / "out"),
        "--sites",
        *map(str, sites.values()),
    ]
    command += ["--rounds", "2", "--size", "64", "--batch_size", "4"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300, stdout=subprocess.DEVNULL)
    common, large, small = (
        torch.load(tmp_path / "out" / f, weights_only=True)
        for f in ("global.pt", "site-1/models/model.pt", "site-2/models/model.pt")
    )
    differ = 0
    for key, value in common["model"].items():
        if key.startswith("teacher."):
            assert torch.equal(value, large[key]), key
        elif key.startswith("student.") and value.is_floating_point():
            # Six and two iterations of four slices.
            assert torch.allclose(value, 0.75 * large[key] + 0.25 * small[key], atol=1e-6), key
            differ += not torch.equal(large[key], small[key])
    assert differ > 100
    assert not bool(common["model"]["calibrated"])
    assert common["model"]["fusion.weights"].tolist() == [0.0, 1.0, 1.0]
