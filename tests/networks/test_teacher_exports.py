"""Teachers of every kind give the eager maps as ONNX and in OpenVINO.

tests/networks/test_multiad.py has them as TorchScript.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multiad_med.inference.export_model import export_onnx
from multiad_med.networks import build_multiad

pytestmark = pytest.mark.slow

ort = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")


class Rotation(nn.Module):
    """A student that costs nothing: the teacher's features, their channels rotated."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        return [torch.cat([f[:, 1:], f[:, :1]], dim=1) for f in teacher_features]


@pytest.mark.parametrize("teacher", ["efficientnet_lite2", "vgg16"])
def test_exports_give_the_eager_maps(tmp_path: Path, teacher: str) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `export` is not installed")
    torch.manual_seed(0)
    network = build_multiad(
        "resnet18",
        teacher=teacher,
        teacher_weights="random",
        student=f"{__name__}.Rotation",
        sigma=1.0,
    ).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(x).numpy()
    assert expected.std() > 1e-3
    onnx = export_onnx(tmp_path / "model.pt", tmp_path / "model.onnx", size=64)
    (maps,) = ort.InferenceSession(onnx).run(["pred"], {"image": x.numpy()})
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.convert_model(onnx), "CPU", hint)
    np.testing.assert_allclose(compiled(x.numpy())["pred"], expected, atol=1e-4)
