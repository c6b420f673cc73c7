"""The command line answers at once, and the package imports nothing heavy or optional."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import multiad_med
from multiad_med.cli import app


def _fastest(code: str, rounds: int = 3) -> float:
    """Shortest wall time of a fresh interpreter."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_answer_within_a_second(option: str) -> None:
    code = f"import sys; sys.argv = ['multiad', '{option}']; from multiad_med.cli import app; app()"
    assert _fastest(code) < 1


def test_importing_the_package_costs_under_300_ms_more_than_torch() -> None:
    assert _fastest("import torch, multiad_med") - _fastest("import torch") < 0.3


def test_no_optional_package_is_imported() -> None:
    code = (
        "import multiad_med, multiad_med.networks, multiad_med.engines, multiad_med.data, sys;"
        "print([m for m in ('torchvision', 'timm', 'highdicom', 'monailabel', 'anomalib', 'ray',"
        " 'openvino') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_version_is_the_packages() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.strip() == f"multiad {multiad_med.__version__}"


def test_bundle_prints_its_folder_and_names_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["bundle", "multiad_brain_mri"])
    assert result.exit_code == 0
    assert (Path(result.stdout.strip()) / "configs" / "train.json").is_file()
    result = CliRunner().invoke(app, ["bundle", "nothing"])
    assert result.exit_code != 0
    assert "multiad_brain_mri" in result.output


@pytest.mark.parametrize("words", [["init", "a#b"], ["start", "a#b", "."]])
def test_a_folder_that_monai_label_would_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["label", *words])
    assert made.exit_code == 1
    assert f"{tmp_path}/a#b: MONAI Label cannot work in a folder with '#'" in made.output
    assert not list(tmp_path.iterdir())
