"""Which run-time computes a network's maps: PyTorch, or one that is faster on a CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multiad_med.inference.exports import by_onnxruntime, by_openvino, exports_dir
from multiad_med.inference.int8 import INT8, by_int8, is_int8
from multiad_med.inference.openvino import Maps
from multiad_med.networks.multiad import MultiAD
from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError, MultiADError, is_missing
from multiad_med.utils.tensors import plain_tensor

__all__ = ["Runtime", "RuntimeNetwork", "RuntimeUnfitError"]

TOLERANCE = 1e-3
_COMPARED = 3
"""Images of the first batch whose maps PyTorch makes too; more than converters are shown."""

_choosing = threading.Lock()
_logger = logging.getLogger(__name__)


class Runtime(StrEnum):
    """What computes the maps."""

    AUTO = "auto"
    """The fastest that is installed and gives PyTorch's maps."""
    TORCH = "torch"
    """PyTorch: the bundle's own maps, bit by bit."""
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


_FASTEST_FIRST = (Runtime.OPENVINO, Runtime.ONNXRUNTIME, Runtime.TORCH)
_CONVERTED: dict[Runtime, Callable[[MultiAD, tuple[int, int]], Maps]] = {
    Runtime.OPENVINO: by_openvino,
    Runtime.ONNXRUNTIME: by_onnxruntime,
}


_NEEDED = {Runtime.ONNXRUNTIME: ("onnxruntime", "onnx", "onnxscript")}
"""Packages of a run-time that needs others than itself."""


class RuntimeUnfitError(MultiADError, RuntimeError):
    """The run-time that was asked for does not give the network's maps."""


class RuntimeNetwork(nn.Module):
    """A network whose maps a run-time computes, chosen when the first batch comes.

    A run-time other than PyTorch has the network converted, in float32, and is taken if its maps of
    the first batch (of three images of it) are within 1e-3 of PyTorch's. ``auto`` tries OpenVINO, then
    ONNX Runtime, then PyTorch, on a CPU; on a GPU it is PyTorch. The log has one line: which, and why not
    another. The conversion is kept (:func:`multiad_med.inference.exports.exports_dir`).

    A model whose thresholds were set for INT8 (``multiad export openvino --int8``) is computed by that
    export, and by nothing else.

    Args:
        network: with its weights, or they are loaded before the first batch.
        runtime: see :class:`Runtime`.
        device: where the network is.
        model: the file of its weights; an INT8 export lies beside it.

    Raises:
        InputError: on an unknown run-time, or one that needs a CPU where the network is on a GPU.
    """

    def __init__(
        self,
        network: MultiAD,
        *,
        runtime: Runtime | str = Runtime.TORCH,
        device: str | torch.device = "cpu",
        model: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.asked = choose(Runtime, runtime, what="runtime")
        self.on_cpu: bool = torch.device(device).type == "cpu"
        self.model = model
        if not self.on_cpu and self.asked in _CONVERTED:
            raise InputError(
                f"runtime {self.asked} runs on a CPU, and the device is {device}. Choose the device cpu, "
                "or runtime auto or torch."
            )
        self._taken: str | None = None
        self._maps: dict[tuple[int, int], Maps] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot be sent to another process, which is made again there."""
        return {**self.__dict__, "_maps": {}, "_taken": None}

    def _candidates(self) -> list[Runtime]:
        if self.asked is not Runtime.AUTO:
            return [self.asked]
        return list(_FASTEST_FIRST) if self.on_cpu else [Runtime.TORCH]

    @property
    def name(self) -> str:
        """The run-time that computes the maps; before the first batch the one that is tried first.

        Raises:
            InputError: when the model's thresholds were set for INT8, and something else is asked for.
        """
        if is_int8(self.network.card):
            if self.asked not in (Runtime.AUTO, Runtime.OPENVINO) or not self.on_cpu:
                raise InputError(
                    f"The thresholds of {self.model} were set for its INT8 export, which OpenVINO runs "
                    "on a CPU. Choose runtime openvino and the device cpu, or the model that it was "
                    "made of."
                )
            return INT8
        installed = (
            r for r in self._candidates() if not any(map(is_missing, _NEEDED.get(r, (r,))))
        )
        return self._taken or next(installed, self.asked)

    def forward(self, x: Tensor) -> Tensor:
        """Return calibrated maps ``(B, 1 or 2, H, W)`` of images ``(B, 1 or 3, H, W)`` in [0, 1].

        Raises:
            MissingPackageError: when the run-time that was asked for is not installed.
            RuntimeUnfitError: when it cannot run the network, or gives other maps.
            InputError: as of :attr:`name`.
        """
        if self.name == Runtime.TORCH:
            return self.network(x)
        images = plain_tensor(x).expand(-1, 3, -1, -1)
        size = (images.shape[2], images.shape[3])
        if size not in self._maps:
            with _choosing:
                if size not in self._maps and self.name != Runtime.TORCH:
                    return self._first_maps(images, size)
        maps = self._maps.get(size)
        return self.network(x) if maps is None else maps(images)

    def _first_maps(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Choose what makes the maps of images of a size, and return those of the first."""
        if self.name == INT8:
            self._maps[size] = by_int8(self.network.card, self.model, size)
            _logger.info("Maps by OpenVINO in INT8, which the model's thresholds were set for.")
            return self._maps[size](images)
        reasons: list[str] = []
        made: Tensor | None = None
        for runtime in self._candidates():
            try:
                made = self._checked(runtime, images, size) if runtime in _CONVERTED else None
            except MultiADError as error:
                if self.asked is not Runtime.AUTO:
                    raise
                reasons.append(str(error))
                continue
            self._taken = runtime
            why = "; ".join(reasons) or "the fastest on a CPU, and its maps are PyTorch's"
            if self.asked is Runtime.AUTO:
                _logger.info("Maps by %s: %s.", runtime, why.rstrip("."))
            break
        return self.network(images) if made is None else made

    def _checked(self, runtime: Runtime, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Take a run-time if it gives PyTorch's maps; return those of the images."""
        some = [index * (len(images) - 1) // 2 for index in range(_COMPARED)]
        enough = len(images) >= _COMPARED
        try:
            maps = _CONVERTED[runtime](self.network, size)
            found, expected = maps(images if enough else images[some]), self.network(images[some])
        except MultiADError:
            raise
        except Exception as error:  # converters raise nearly every type
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RuntimeUnfitError(f"{runtime} cannot run this network: {reason}") from error
        shape = (max(len(images), _COMPARED), *expected.shape[1:])
        if found.shape != shape:
            raise RuntimeUnfitError(
                f"the maps of {runtime} have the shape {tuple(found.shape)} instead of {shape}"
            )
        compared = found[some] if enough else found
        difference = float((compared - expected).abs().max())
        if not difference <= TOLERANCE:
            raise RuntimeUnfitError(
                f"the maps of {runtime} differ from PyTorch's by {difference:.2g}, allowed is "
                f"{TOLERANCE}; delete {exports_dir()}, if the network's code has changed"
            )
        self._maps[size] = maps
        return found if enough else maps(images)
