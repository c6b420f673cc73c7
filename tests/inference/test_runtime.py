"""Other run-times give PyTorch's maps, or are not taken, and the log says why."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multiad_med.inference import Runtime, RuntimeNetwork, RuntimeUnfitError, exports, runtime
from multiad_med.networks import MultiAD, build_multiad
from multiad_med.testing.networks import tiny_multiad
from multiad_med.utils.errors import InputError, MissingPackageError, missing_package

SIZE = (32, 48)  # rows, columns

pytestmark = [
    pytest.mark.filterwarnings("ignore:# 'dynamic_axes'"),  # MONAI's convert_to_onnx
]


@pytest.fixture
def network() -> MultiAD:
    torch.manual_seed(0)
    return tiny_multiad().eval()


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of converted networks."""
    monkeypatch.setattr(exports, "exports_dir", lambda: tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="multiad_med")
    return caplog


def converts_to(monkeypatch: pytest.MonkeyPatch, name: Runtime, made: Any) -> None:
    """Let a run-time make maps as a function of the network and the size says."""
    monkeypatch.setitem(runtime._CONVERTED, name, made)


def is_not_installed(monkeypatch: pytest.MonkeyPatch, name: Runtime) -> None:
    def made(*_: object) -> Any:
        raise missing_package(name)

    converts_to(monkeypatch, name, made)


def is_off_by(monkeypatch: pytest.MonkeyPatch, name: Runtime, difference: float) -> None:
    def made(network: MultiAD, size: tuple[int, int]) -> Any:
        return lambda images: network(images) + difference

    converts_to(monkeypatch, name, made)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [Runtime.OPENVINO, Runtime.ONNXRUNTIME], ids=["openvino", "onnxruntime"]
)
@torch.no_grad()
def test_maps_are_torchs_for_any_batch_and_for_grey_images(name: Runtime, network: MultiAD) -> None:
    pytest.importorskip(name, reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    by = RuntimeNetwork(network, runtime=name)
    for shape in ((3, 3), (1, 3), (5, 1)):
        images = torch.rand(*shape, *SIZE)
        expected = network(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(by(images), expected, atol=1e-4, rtol=0)
    assert by.name == name


@torch.no_grad()
def test_torch_is_the_network_itself_bit_by_bit(network: MultiAD) -> None:
    images = torch.rand(2, 3, *SIZE)
    assert torch.equal(RuntimeNetwork(network)(images), network(images))


@torch.no_grad()
def test_auto_takes_openvino_and_says_so(
    network: MultiAD, log: pytest.LogCaptureFixture, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    images = torch.rand(4, 3, *SIZE)
    first = RuntimeNetwork(network, runtime="auto")
    assert first.name == "openvino"
    torch.testing.assert_close(first(images), network(images), atol=1e-4, rtol=0)
    (line,) = log.messages
    assert line.startswith("Maps by openvino: ")
    assert [p.name for p in sorted(kept.rglob("*")) if p.is_file()] == ["model.bin", "model.xml"]

    def never(*_: object) -> None:
        raise AssertionError("it was kept")

    monkeypatch.setattr(exports, "to_openvino", never)
    torch.testing.assert_close(
        RuntimeNetwork(network, runtime="openvino")(images), network(images), atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_each_size_and_other_weights_have_a_conversion_of_their_own(
    network: MultiAD, kept: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    by = RuntimeNetwork(network, runtime="openvino")
    for size in (SIZE, (32, 32)):
        images = torch.rand(1, 3, *size)
        torch.testing.assert_close(by(images), network(images), atol=1e-4, rtol=0)
    other = tiny_multiad().eval()
    images = torch.rand(1, 3, *SIZE)
    loaded_later = RuntimeNetwork(other, runtime="openvino")
    other.load_state_dict(network.state_dict())
    other.pixel_threshold.fill_(2)
    torch.testing.assert_close(loaded_later(images), other(images), atol=1e-4, rtol=0)
    assert len(list(kept.iterdir())) == 3


@torch.no_grad()
def test_where_nothing_can_be_kept_it_is_converted_each_time(network: MultiAD, kept: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    kept.write_text("no folder")
    images = torch.rand(1, 3, *SIZE)
    maps = RuntimeNetwork(network, runtime="openvino")(images)
    torch.testing.assert_close(maps, network(images), atol=1e-4, rtol=0)


@torch.no_grad()
def test_auto_goes_on_to_the_next_that_is_installed_and_says_why(
    network: MultiAD, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(2, 3, *SIZE)
    is_not_installed(monkeypatch, Runtime.OPENVINO)
    is_off_by(monkeypatch, Runtime.ONNXRUNTIME, 5e-4)
    by = RuntimeNetwork(network, runtime="auto")
    by(images)
    assert by.name == "onnxruntime"
    is_not_installed(monkeypatch, Runtime.ONNXRUNTIME)
    by = RuntimeNetwork(network, runtime="auto")
    assert torch.equal(by(images), network(images))
    assert by.name == "torch"
    first, second = log.messages
    assert first.startswith("Maps by onnxruntime: The package openvino is not installed")
    assert second.startswith("Maps by torch: The package openvino is not installed")
    assert "The package onnxruntime is not installed" in second


@torch.no_grad()
def test_a_run_time_with_other_maps_or_that_fails_is_not_taken(
    network: MultiAD, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("no rule for aten::foo\nand more")

    images = torch.rand(2, 3, *SIZE)
    is_off_by(monkeypatch, Runtime.OPENVINO, 2e-3)
    converts_to(monkeypatch, Runtime.ONNXRUNTIME, fails)
    by = RuntimeNetwork(network, runtime="auto")
    assert torch.equal(by(images), network(images))
    assert torch.equal(by(images[:1]), network(images[:1]))
    (line,) = log.messages
    assert by.name == "torch"
    assert "openvino differ from PyTorch's by 0.002, allowed is 0.001" in line
    assert "onnxruntime cannot run this network: no rule for aten::foo" in line
    with pytest.raises(RuntimeUnfitError, match=r"differ from PyTorch's by 0\.002"):
        RuntimeNetwork(network, runtime="openvino")(images)
    with pytest.raises(RuntimeUnfitError, match="no rule for aten::foo"):
        RuntimeNetwork(network, runtime="onnxruntime")(images)


@torch.no_grad()
def test_a_conversion_that_has_taken_the_batch_for_a_constant_is_not_taken(
    network: MultiAD, monkeypatch: pytest.MonkeyPatch
) -> None:
    converts_to(monkeypatch, Runtime.OPENVINO, lambda *_: lambda images: network(images[:2]))
    for batch in (1, 2, 3):
        with pytest.raises(RuntimeUnfitError, match=r"shape \(2, 1, 32, 48\) instead of \(3, "):
            RuntimeNetwork(network, runtime="openvino")(torch.rand(batch, 3, *SIZE))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["neighbours", "gaussian", "dual_lite2"])
@torch.no_grad()
def test_experts_and_tokens_are_converted_for_any_batch(preset: str) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    torch.manual_seed(0)
    network = build_multiad(preset, teacher_weights="random").eval()
    by = RuntimeNetwork(network, runtime="openvino")
    for batch in (2, 5):
        images = torch.rand(batch, 3, 64, 64)
        torch.testing.assert_close(by(images), network(images), atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_nan_is_another_map(network: MultiAD, monkeypatch: pytest.MonkeyPatch) -> None:
    is_off_by(monkeypatch, Runtime.OPENVINO, float("nan"))
    with pytest.raises(RuntimeUnfitError, match="by nan"):
        RuntimeNetwork(network, runtime="openvino")(torch.rand(2, 3, *SIZE))


def test_what_is_asked_for_must_be_there(network: MultiAD, monkeypatch: pytest.MonkeyPatch) -> None:
    is_not_installed(monkeypatch, Runtime.OPENVINO)
    with pytest.raises(MissingPackageError, match="openvino is not installed"):
        RuntimeNetwork(network, runtime="openvino")(torch.rand(1, 3, *SIZE))
    with pytest.raises(InputError, match=r"runtime is one of .*got 'tvm'"):
        RuntimeNetwork(network, runtime="tvm")


def test_on_a_gpu_auto_is_torch_and_others_are_refused(network: MultiAD) -> None:
    assert RuntimeNetwork(network, runtime="auto", device="cuda").name == "torch"
    with pytest.raises(InputError, match="runs on a CPU, and the device is cuda"):
        RuntimeNetwork(network, runtime="openvino", device="cuda")


@torch.no_grad()
def test_it_can_be_sent_to_another_process(network: MultiAD) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    by, images = RuntimeNetwork(network, runtime="openvino"), torch.rand(1, 3, *SIZE)
    expected: Tensor = by(images)
    sent = pickle.loads(pickle.dumps(by))
    torch.testing.assert_close(sent(images), expected, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_signals_arrive_when_networks_ended_in_the_order_they_were_made(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    program = f"""
import os, signal, torch
from multiad_med.inference import RuntimeNetwork
from multiad_med.testing.networks import tiny_multiad
made = [RuntimeNetwork(tiny_multiad().eval(), runtime="openvino") for _ in range(2)]
with torch.no_grad():
    for one in made:
        one(torch.rand(1, 3, {SIZE[0]}, {SIZE[1]}))
del one
made.pop(0)
made.pop(0)
signal.signal(signal.SIGCHLD, lambda *_: print("arrived"))
os.kill(os.getpid(), signal.SIGCHLD)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TORCH_HOME": str(tmp_path)},
    )
    assert (ended.returncode, ended.stdout) == (0, "arrived\n"), ended.stderr


def test_onnx_runtime_without_what_exports_is_not_told_as_the_one_in_use(
    network: MultiAD, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"openvino", "onnxscript"}
    monkeypatch.setattr(runtime, "is_missing", lambda name: str(name) in absent)
    mapper = RuntimeNetwork(network, runtime=Runtime.AUTO)
    assert mapper.name == Runtime.TORCH
    absent.remove("onnxscript")
    assert mapper.name == Runtime.ONNXRUNTIME
