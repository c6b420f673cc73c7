"""The scripts of benchmarks/: what they import is there, and what they read of their arguments too."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


def _declared(call: ast.Call) -> str | None:
    """Return the name under which argparse keeps an argument; None of another call."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"):
        return None
    for keyword in call.keywords:
        if keyword.arg == "dest":
            return str(ast.literal_eval(keyword.value))
    words = [str(word.value) for word in call.args if isinstance(word, ast.Constant)]
    name = next((word for word in words if word.startswith("--")), words[0] if words else "")
    return name.lstrip("-").replace("-", "_")


def test_there_are_benchmarks() -> None:
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_reads_only_arguments_that_it_declares(script: Path) -> None:
    nodes = list(ast.walk(ast.parse(script.read_text())))
    declared = {_declared(node) for node in nodes if isinstance(node, ast.Call)}
    read = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "args"
    }
    assert read <= declared


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_imports_what_is_there(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="imported")
