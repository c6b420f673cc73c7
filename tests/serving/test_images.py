"""A line's images: served from a folder one by one, finished or not begun when the service is stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from multiad_med.cli import app
from multiad_med.serving import FolderSource
from multiad_med.serving import service as command
from multiad_med.serving.ledger import PassedOver
from multiad_med.testing.cohorts import write_fake_model
from tests.serving.test_service import serving

SIZE = 64


def _image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="module")
def product_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.pt"
    return write_fake_model("multiad_industrial", file)


def test_images_are_studies_and_the_rest_is_passed_over_by_name(tmp_path: Path) -> None:
    for name in ("a.png", "line 2/b.JPG", "c_mask.png", ".hidden.png", ".d/e.png"):
        _image(tmp_path / name, 0)
    (tmp_path / "notes.txt").write_text("shift 2")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = FolderSource(tmp_path, kind=None, settle=0).find()
    assert sorted(study.key for study in found.studies) == ["a.png", "line 2/b.JPG"]
    assert {study.key: what for study, what in found.passed_over} == {
        "c_mask.png": PassedOver.MASK,
        "notes.txt": PassedOver.NOT_AN_IMAGE,
        "gone.png": PassedOver.UNREADABLE,
    }


def test_an_image_that_still_grows_is_left_for_later(tmp_path: Path) -> None:
    _image(tmp_path / "a.png", 0)
    found = FolderSource(tmp_path, kind=None, settle=60).find()
    assert (found.studies, found.unsettled) == ([], 1)


@pytest.mark.slow
def test_images_are_judged_as_they_come_until_sigterm(product_model: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    options = ("--settle", "0.2", "--tries", "1", "--runtime", "torch")
    with serving(folder, product_model, output, *options) as service:
        service.wait("ready")
        (folder / "cut.png").write_bytes(_image(folder / "a.png", 1).read_bytes()[:200])
        service.wait("over", 2)
        for number in range(6):
            _image(folder / f"more/{number}.png", number)
        service.wait("over", 3)
        assert service.end(signal.SIGTERM) == 0
        states = [event["state"] for event in service.events("over")]
        assert states.count("failed") == 1
    scores = sorted((output / "results").rglob("*_anomaly.json"))
    assert len(scores) == len(states) - 1
    for file in scores:
        assert json.loads(file.read_text())["verdict"]
        stem = file.name.removesuffix("_anomaly.json")
        assert (file.parent / f"{stem}.tiff").is_file()
    assert len(list((output / "results").rglob("*.tiff"))) == len(scores)


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("in", ["--kind", "seg"], "--kind is of DICOM series"),
        ("http://127.0.0.1:9/dicom-web", [], "a DICOMweb server has volumes"),
    ],
    ids=["DICOM results", "DICOMweb"],
)
def test_what_images_do_not_have_is_refused(
    product_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    options: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(command, "log_to", lambda **_: None)
    (tmp_path / "in").mkdir()
    place = source if "://" in source else str(tmp_path / source)
    given = ["--model", str(product_model), "--output", str(tmp_path / "out"), "--port", "0"]
    result = CliRunner().invoke(app, ["serve", place, *given, *options])
    assert result.exit_code == 2
    assert told in result.output
