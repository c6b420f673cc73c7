"""Networks that look at the whole image too give both channels as TorchScript, ONNX and in OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.inference.export_model import export_onnx
from multiad_med.networks import (
    DinoFeatures,
    MultiAD,
    VisionTransformerSize,
    build_multiad,
    open_model,
)
from multiad_med.training import calibrate, fit_experts

HERE = __name__
SIZE = (61, 75)
"""No multiples of a patch, nor of a stage's stride."""


class TinyDino(DinoFeatures):
    """A teacher that is built without arguments."""

    def __init__(self) -> None:
        super().__init__(VisionTransformerSize(dim=32, depth=4, heads=2, registers=4, grid=4))


NETWORKS: dict[str, dict[str, Any]] = {
    "vit": {"preset": "dual_dinov2_s", "teacher": f"{HERE}.TinyDino"},
    "cnn": {
        "preset": "dual_lite2",
        "teacher": "multiad_med.testing.networks.TinyFeatures",
        "experts": ["token_neighbours", "token_gaussian"],
    },
    "lite": {"preset": "dual_lite2", "experts": ["token_neighbours", "token_gaussian"]},
    "aligned": {
        "preset": "efficientnet_lite0_decoder",
        "teacher": "multiad_med.testing.networks.TinyFeatures",
        "align_categories": True,
        "experts": ["token_neighbours"],
        "fusion": "hazard",
    },
    "dinomaly": {
        "preset": "dinomaly",
        "teacher": f"{HERE}.TinyDino",
        "experts": ["token_gaussian"],
    },
}


def _images(count: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *SIZE, generator=random) * torch.rand(
        count, 1, 1, 1, generator=random
    )


def _network(name: str) -> MultiAD:
    torch.manual_seed(0)
    network = build_multiad(**NETWORKS[name], teacher_weights="random", sigma=1.0)
    fit_experts(network, [{"image": _images(24, 1)}])
    calibrate(network, [{"image": _images(16, 2)}])
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_torchscript_gives_both_channels(name: str, tmp_path: Path) -> None:
    network = _network(name)
    torch.jit.script(network).save(str(tmp_path / "network.ts"))
    scripted = torch.jit.load(str(tmp_path / "network.ts"))
    for size in (SIZE, (64, 64)):
        x = torch.rand(2, 3, *size)
        expected = network(x)
        assert expected.shape == (2, 2, *size)
        torch.testing.assert_close(scripted(x), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "cnn", "aligned"])
def test_onnx_and_openvino_give_both_channels(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    openvino = pytest.importorskip("openvino", reason="the extra `export` is not installed")
    network = _network(name)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    network = open_model(tmp_path / "model.pt").eval()
    x = _images(3, 3)
    with torch.no_grad():
        expected = network(x).numpy()
    assert expected.shape == (3, 2, *SIZE)
    assert min(expected[:, channel].std() for channel in range(2)) > 1e-3
    onnx = export_onnx(tmp_path / "model.pt", tmp_path / "model.onnx", size=SIZE)
    (maps,) = ort.InferenceSession(onnx).run(["pred"], {"image": x.numpy()})
    np.testing.assert_allclose(maps, expected, atol=1e-5, rtol=0)
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.convert_model(onnx), "CPU", hint)
    np.testing.assert_allclose(compiled(x.numpy())["pred"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vit", "dinomaly"])
@pytest.mark.parametrize("size", [(56, 70), (61, 75), (57, 99), (70, 43)])
@torch.no_grad()
def test_what_is_bright_stays_where_it_is(name: str, size: tuple[int, int]) -> None:
    """Sides are rounded up to whole patches, and the map is cropped, not squeezed."""
    torch.manual_seed(0)
    network = build_multiad(
        **NETWORKS[name], teacher_weights="random", sigma=1.0, fusion="sum"
    ).eval()
    dark = torch.full((1, 3, *size), 0.2)
    for top, left in ((14, 14), (size[0] - 14, size[1] - 14)):
        bright = dark.clone()
        bright[..., top : top + 14, left : left + 14] = 1.0
        change = (network.raw_map(bright) - network.raw_map(dark))[0, 0].abs()
        assert change.shape == size
        row, column = np.unravel_index(int(change.argmax()), size)
        assert top - 4 <= row < top + 18
        assert left - 4 <= column < left + 18


def test_masks_are_continued_to_the_whole_patches_that_the_maps_cover() -> None:
    """A mask that fills the second patch alone fills its place alone, though the patch is cut."""
    network = _network("vit")
    patch = network.patch
    mask = torch.zeros(1, 1, patch, patch + 3, dtype=torch.bool)
    mask[..., patch:] = True
    whole = network.on_whole_patches(mask)
    assert whole.shape == (1, 1, patch, 2 * patch)
    assert F.adaptive_avg_pool2d(whole, (1, 2)).flatten().tolist() == [0.0, 1.0]
    fitting = torch.zeros(1, 1, patch, 2 * patch, dtype=torch.bool)
    assert network.on_whole_patches(fitting) is fitting
