"""OpenVINO gives the network's maps, or an error that says why it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.networks.utils import convert_to_onnx

from multiad_med.inference import ExportError, OpenVINONetwork
from multiad_med.networks import MultiAD
from multiad_med.testing.networks import tiny_multiad

pytest.importorskip("openvino", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

SIZE = 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[MultiAD, Path]:
    """A network and its export with a dynamic batch."""
    torch.manual_seed(0)
    network = tiny_multiad().eval()
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    convert_to_onnx(
        network, [torch.rand(1, 3, SIZE, SIZE)], filename=path, dynamic_axes={"x": {0: "batch"}}
    )
    return network, path


@pytest.mark.slow
@torch.no_grad()
def test_maps_are_the_networks_for_any_batch(exported: tuple[MultiAD, Path]) -> None:
    network, path = exported
    fast = OpenVINONetwork(network, path)
    for batch in (3, 1, 5):
        x = torch.rand(batch, 3, SIZE, SIZE)
        expected = network(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(fast(x), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_grey_images_stand_for_three_equal_channels(exported: tuple[MultiAD, Path]) -> None:
    network, path = exported
    grey = torch.rand(2, 1, SIZE, SIZE)
    torch.testing.assert_close(
        OpenVINONetwork(network, path)(grey), network(grey), atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_weights_loaded_after_it_was_built_count(exported: tuple[MultiAD, Path]) -> None:
    network, path = exported
    torch.manual_seed(1)
    other = tiny_multiad().eval()
    fast = OpenVINONetwork(other, path)
    other.load_state_dict(network.state_dict())
    x = torch.rand(2, 3, SIZE, SIZE)
    torch.testing.assert_close(fast(x), network(x), atol=1e-4, rtol=0)


@torch.no_grad()
def test_an_export_of_another_model_is_refused(exported: tuple[MultiAD, Path]) -> None:
    torch.manual_seed(1)
    fast = OpenVINONetwork(tiny_multiad().eval(), exported[1])
    with pytest.raises(ExportError, match="not an export"):
        fast(torch.rand(2, 3, SIZE, SIZE))


@torch.no_grad()
def test_another_size_or_a_missing_file_is_refused(exported: tuple[MultiAD, Path]) -> None:
    network, path = exported
    with pytest.raises(ExportError, match=r"--input_shape '\[2, 3, 48, 48\]'"):
        OpenVINONetwork(network, path)(torch.rand(1, 3, 48, 48))
    with pytest.raises(ExportError, match=r"no exported network.*none\.onnx"):
        OpenVINONetwork(network, path.with_name("none.onnx"))(torch.rand(1, 3, SIZE, SIZE))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_signals_arrive_when_networks_ended_in_the_order_they_were_made(
    exported: tuple[MultiAD, Path],
) -> None:
    network, path = exported
    state = path.with_name("state.pt")
    torch.save(network.state_dict(), state)
    program = f"""
import os, signal, torch
from multiad_med.networks import OpenVINONetwork
from multiad_med.testing.networks import tiny_multiad
network = tiny_multiad().eval()
network.load_state_dict(torch.load({str(state)!r}, weights_only=True))
made = [OpenVINONetwork(network, {str(path)!r}) for _ in range(2)]
with torch.no_grad():
    for one in made:
        one(torch.rand(1, 3, {SIZE}, {SIZE}))
del one
made.pop(0)
made.pop(0)
signal.signal(signal.SIGCHLD, lambda *_: print("arrived"))
os.kill(os.getpid(), signal.SIGCHLD)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, "arrived\n"), ended.stderr
