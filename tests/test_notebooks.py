"""The notebooks of the documentation run from their first cell to their last.

``python -m tests.test_notebooks`` runs them too, and keeps what they print and draw in the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="needs the extra `notebooks`")
pytest.importorskip("ipykernel", reason="needs the extra `notebooks`")
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path, *, working_directory: Path = FOLDER) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own; an error in a cell is an error here."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(working_directory)}},
    )
    client.execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> list[Any]:
    """What the cells printed and drew."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_leaves_nothing_beside_itself(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, temporary = tmp_path / "beside", tmp_path / "temporary"
    beside.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    run(path, working_directory=beside)
    assert not list(beside.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_its_images_and_without_paths(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    shown = [output.get("data", {}) for output in outputs(notebook)]
    assert sum("image/png" in data for data in shown) >= 3
    told = [output.get("text", "") for output in outputs(notebook)]
    told += [data.get("text/plain", "") for data in shown]
    assert not [text for text in told if str(Path.home()) in text or "/tmp" in text]


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"images", "volumes"}


if __name__ == "__main__":
    for file in NOTEBOOKS:
        done = run(file)
        for cell in done.cells:
            if "outputs" in cell:  # without progress bars, which say nothing on a page
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(done, file)
