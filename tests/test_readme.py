"""What README, CONTRIBUTING and the page on training show runs, and what they name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.bundles.test_folder_inference import nifti_head

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_example(page: str) -> str:
    """The one example in Python of a page."""
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    return str(code)


def test_the_two_commands_keep_their_form() -> None:
    setup = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt "
    assert f"{setup}. && .venv/bin/multiad demo --output demo\n" in README
    assert f"{setup}-e '.[test]' && .venv/bin/pytest -n 2 --dist loadfile\n" in README


@pytest.mark.slow
def test_the_example_of_readme_trains_predicts_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        nifti_head(tmp_path / f"normal/{number}.nii.gz", seed=number)
    nifti_head(tmp_path / "new/patient.nii.gz", seed=9)
    monkeypatch.chdir(tmp_path)
    fast = 'AnomalyDetector("brain_mri", size=64, max_epochs=1, device="cpu")'
    exec(python_example(README).replace('AnomalyDetector("brain_mri")', fast), {})
    # Three of four train, and one held-out volume allows no verdict at 5 %.
    assert "Result(patient.nii.gz: no verdict" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "patient_anomaly.json",
        "patient_anomaly_map.nii.gz",
        "patient_anomaly_mask.nii.gz",
    ]


def test_the_example_of_the_parts_gives_a_map() -> None:
    code = python_example((ROOT / "docs/training.md").read_text(encoding="utf-8"))
    scope: dict[str, object] = {}
    exec(code.replace("rand(8, 3, 256, 256)", "rand(8, 3, 64, 64)"), scope)
    anomaly_map = scope["anomaly_map"]
    assert anomaly_map.shape == (8, 1, 64, 64)
    assert float(anomaly_map.min()) >= 0
    assert float(anomaly_map.max()) < 1


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/commands.md"])
def test_linked_files_exist(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (path.parent / target).exists(), target


def test_files_that_contributing_tells_to_copy_or_change_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:multiad_med|tests|bundles|benchmarks|preprocessing)/[\w./]+)`", text)
    told = [path for path in named if "NAME" not in path]
    assert len(told) > 10
    for path in told:
        assert (ROOT / path).exists(), path


def test_the_citation_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    assert f"Version {version}," in README
