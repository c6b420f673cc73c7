"""``multiad serve`` is a verb of its own, and has two more below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.runs import mistake, multiad


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the service was started with."""
    given: dict[str, Any] = {}

    def serve(source: str, **options: Any) -> None:
        given.update(source=source, **options)

    monkeypatch.chdir(tmp_path)
    Path("model.pt").touch()
    monkeypatch.setattr("multiad_med.serving.service.serve", serve)
    return given


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "in", "-m", "model.pt", "-o", "out", "--once"],
        ["serve", "--once", "--model", "model.pt", "--output", "out", "in"],
        ["serve", "run", "in", "-m", "model.pt", "-o", "out", "--once"],
    ],
)
def test_a_source_starts_the_service(served: dict[str, Any], words: list[str]) -> None:
    result = multiad(*words)
    assert result.exit_code == 0, result.output
    assert (served["source"], served["model"], served["output"]) == (
        "in",
        Path("model.pt"),
        Path("out"),
    )
    assert served["once"] is True
    assert served["device"] == "auto"
    assert served["kinds"] is None  # the service knows whether it has volumes


def test_kinds_of_results_are_chosen_or_none(served: dict[str, Any]) -> None:
    options = ["-m", "model.pt", "-o", "out"]
    multiad("serve", "in", *options, "--kind", "pm", "--kind", "overlay")
    assert {str(kind) for kind in served["kinds"]} == {"pm", "overlay"}
    multiad("serve", "in", *options, "--kind", "none")
    assert served["kinds"] == set()


def test_a_folder_named_like_a_sub_command_is_given_by_its_path(served: dict[str, Any]) -> None:
    multiad("serve", "./status", "-m", "model.pt", "-o", "out")
    assert served["source"] == "./status"


def test_status_and_retry_need_the_output_of_a_service(tmp_path: Path) -> None:
    assert "ledger" in mistake("serve", "status", tmp_path)
    assert "ledger" in mistake("serve", "retry", tmp_path)
