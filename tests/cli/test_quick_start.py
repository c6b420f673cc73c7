"""Predicting starts without what it does not need, and hides nothing from what comes later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multiad_med.utils.quick_start import NOT_FOR_PREDICTION, import_monai_quickly
from tests.cli.conftest import write_heads

FORBIDDEN = {
    *(set(NOT_FOR_PREDICTION) - {"matplotlib"}),  # the summary's picture is drawn with it
    *("SimpleITK", "anomalib", "highdicom", "monailabel", "nilearn", "openvino", "onnxruntime"),
    *("ray", "sympy", "timm", "torchvision", "transformers"),
}


def _fresh(code: str, *words: object) -> Any:
    command = [sys.executable, "-c", code, *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_predicting_a_volume_loads_no_package_that_it_does_not_need(
    model: Path, tmp_path: Path
) -> None:
    new = write_heads(tmp_path / "new", 1)
    code = (
        "import json, sys\n"
        "from multiad_med.cli import app\n"
        "app(standalone_mode=False)\n"
        "print(); print(json.dumps(list(sys.modules)))"
    )
    words = ("predict", new / "s0.nii.gz", "-m", model, "-o", tmp_path / "maps", "--device", "cpu")
    loaded = _fresh(code, *words, "--runtime", "torch")
    assert (tmp_path / "maps" / "s0_anomaly_map.nii.gz").is_file()
    assert "monai" in loaded
    assert FORBIDDEN.isdisjoint(loaded)


@pytest.mark.slow
def test_what_was_hidden_from_monai_can_be_imported_afterwards() -> None:
    code = (
        "import gc, json, sys\n"
        "from multiad_med.utils.quick_start import import_monai_quickly\n"
        "import_monai_quickly()\n"
        "import monai.transforms, monai.engines\n"
        "before = 'matplotlib' in sys.modules\n"
        "import matplotlib.pyplot, torch.utils.tensorboard, scipy.signal\n"
        "from torch.distributed.optim import ZeroRedundancyOptimizer as true\n"
        "print(json.dumps([before, gc.isenabled(), hasattr(true, 'step')]))"
    )
    assert _fresh(code) == [False, True, True]


def test_nothing_is_hidden_where_monai_is_imported_already() -> None:
    import monai  # noqa: F401

    before = dict(sys.modules)
    import_monai_quickly()
    assert sys.modules == before
