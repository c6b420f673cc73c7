"""The command answers at once, explains itself, and the package imports nothing heavy or optional."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

import multiad_med
from multiad_med.cli import app
from tests.cli.runs import multiad

VERBS = (
    *("train", "predict", "calibrate", "evaluate", "view", "serve", "label", "prepare"),
    *("benchmark", "export", "weights", "bundles", "demo", "dicom", "cross-calibrate", "convert"),
)


def _fastest(code: str, rounds: int = 3) -> float:
    """Least processor time of a fresh interpreter, which a busy machine does not lengthen."""
    times = []
    for _ in range(rounds):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = os.times()
        times.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return min(times)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_answer_within_a_second(option: str) -> None:
    code = f"import sys; sys.argv = ['multiad', '{option}']; from multiad_med.cli import app; app()"
    assert _fastest(code) < 1


def test_importing_the_package_costs_under_300_ms_more_than_torch() -> None:
    code = (
        "import time, torch; start = time.process_time(); import multiad_med;"
        "print(time.process_time() - start)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert float(result.stdout) < 0.3


@pytest.mark.slow
def test_no_optional_package_is_imported() -> None:
    code = (
        "import multiad_med, multiad_med.networks, multiad_med.training, multiad_med.data, sys;"
        "print([m for m in ('torchvision', 'timm', 'highdicom', 'monailabel', 'anomalib', 'ray',"
        " 'openvino') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("module", ["multiad_med", "multiad_med.cli"])
def test_the_package_and_its_help_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "print([m for m in ('torch', 'numpy', 'monai', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


def test_version_is_the_packages() -> None:
    result = multiad("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == f"multiad {multiad_med.__version__}"


def test_help_names_every_verb_and_no_old_spelling() -> None:
    shown = multiad("--help").stdout
    named = [line.split()[1] for line in shown.splitlines() if line.startswith("│ ")]
    assert set(VERBS) <= set(named)
    assert not {"bundle", "compare", "ablate"} & set(named)


def _commands() -> Iterator[tuple[list[str], object]]:
    """Every command that help shows, with its words."""

    def walk(words: list[str], command: object) -> Iterator[tuple[list[str], object]]:
        inner = getattr(command, "commands", {})
        for name, one in inner.items():
            if not one.hidden:
                yield from walk([*words, name], one)
        if not inner:
            yield words, command

    yield from walk([], typer.main.get_command(app))


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words, _ in _commands()], ids=" ".join)
def test_every_command_has_whole_sentences_and_one_example(words: list[str]) -> None:
    command = {" ".join(w): c for w, c in _commands()}[" ".join(words)]
    assert command.help.strip().endswith(".") or command.help.strip().endswith(")")  # type: ignore[attr-defined]
    example = f"Example: multiad {' '.join(words)}".replace("serve run", "serve")
    assert command.epilog.startswith(example)  # type: ignore[attr-defined]
    for parameter in command.params:  # type: ignore[attr-defined]
        if not getattr(parameter, "hidden", False) and parameter.name not in ("help",):
            assert parameter.help, (words, parameter.name)
            assert parameter.help.endswith("."), (words, parameter.help)


@pytest.mark.parametrize("words", [["train"], ["serve"], ["export", "onnx"], ["label"], []])
def test_without_arguments_a_command_shows_its_help(words: list[str]) -> None:
    result = multiad(*words)
    assert f"Usage: multiad {' '.join(words)}".rstrip() in result.output
    assert "Error" not in result.output


@pytest.mark.slow
def test_shells_complete_verbs_domains_and_choices() -> None:
    def completed(line: str) -> str:
        words = line.split(" ")
        environment = {
            **os.environ,
            "_MULTIAD_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        code = "from multiad_med.cli import app; app(prog_name='multiad')"
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        return run.stdout

    assert {"train", "predict"} <= set(completed("multiad ").split())
    assert completed("multiad train l").split() == ["liver_ct"]
    assert set(completed("multiad serve ").split()) >= {"status", "retry"}
