"""``multiad export``: networks give the model's own maps in other run-times."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from multiad_med.inference.openvino import compiled, openvino_core
from multiad_med.networks import MultiAD, open_model
from multiad_med.testing.cohorts import write_fake_model
from multiad_med.training import save_model
from tests.cli.runs import mistake, multiad

SIZE = (64, 96)  # rows, columns


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights whose card tells its size."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    network = open_model(write_fake_model("multiad_brain_mri", path))
    save_model(network, path, card={"preparation": {"size": list(SIZE)}})
    return path


def _maps(model: Path, batch: int) -> tuple[MultiAD, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    network = open_model(model).eval()
    images = torch.rand(batch, 3, *SIZE)
    with torch.no_grad():
        return network, images, network(images)


@pytest.mark.slow
def test_torchscript_gives_the_maps(model: Path, tmp_path: Path) -> None:
    result = multiad("export", "torchscript", model, "-o", tmp_path / "out" / "model.ts")
    assert result.stdout.strip() == str(tmp_path / "out" / "model.ts")
    _, images, expected = _maps(model, 2)
    with torch.no_grad():
        maps = torch.jit.load(tmp_path / "out" / "model.ts").eval()(images)
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_openvino_and_onnx_give_the_maps_for_any_batch(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    ort = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    assert multiad("export", "onnx", model, "-o", tmp_path / "model.onnx").exit_code == 0
    assert multiad("export", "openvino", model, "-o", tmp_path / "model.xml").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.onnx", "model.xml"]
    exported = openvino_core().read_model(tmp_path / "model.xml")
    assert exported.input(0).names == {"image"}
    assert exported.output(0).names == {"pred"}
    run = compiled(exported)
    session = ort.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 3):
        _, images, expected = _maps(model, batch)
        torch.testing.assert_close(run(images), expected, atol=1e-4, rtol=0)
        (maps,) = session.run(["pred"], {"image": images.numpy()})
        np.testing.assert_allclose(maps, expected.numpy(), atol=1e-4)


def test_mistakes_are_told(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    told = mistake("export", "onnx", model, "-o", target, "--size", "64")
    assert re.search(r"\b64 (by|x) 96\b", told)
    assert "end in .xml" in mistake("export", "openvino", model, "-o", target)
    old = write_fake_model("multiad_brain_mri", tmp_path / "old.pt")
    assert "Give --size" in mistake("export", "onnx", old, "-o", target)
    assert not target.exists()


def test_slices_are_exported_under_both_spellings(tmp_path: Path) -> None:
    for words in (["export", "none", "--target", "t"], ["export", "slices", "none", "-o", "t"]):
        assert "none holds no prepared slices" in mistake(*words)
