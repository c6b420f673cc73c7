"""A trained network run by OpenVINO, which is faster on a CPU than PyTorch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multiad_med.networks.multiad import MultiAD
from multiad_med.utils.errors import MultiADError, missing_package
from multiad_med.utils.tensors import plain_tensor

__all__ = ["ExportError", "OpenVINONetwork"]

TOLERANCE = 1e-3


class ExportError(MultiADError, RuntimeError):
    """An exported network is missing, or is not that of the model in use."""


@cache
def _core() -> Any:
    """Return the process's only ``Core``, which is never destroyed.

    OpenVINO gives the thread that makes one a signal stack of its own. If the first of two is destroyed
    first, the second restores the stack of the first, which is gone. The next signal, such as that of a
    ``DataLoader``'s ending worker, would then end the process with SIGSEGV.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing_package("openvino") from error
    return openvino.Core()


class OpenVINONetwork(nn.Module):
    """Computes the maps of a Multi-AD network by its ONNX export in OpenVINO, in float32 on the CPU.

    The file is read at the first batch. That batch's first map is compared with the network's own, so
    that an export of another training is noticed.

    Args:
        network: with the weights that were exported; it may load them after this is built.
        path: what ``python -m monai.bundle onnx_export`` wrote, see docs/deployment.md.
    """

    def __init__(self, network: MultiAD, path: str | Path) -> None:
        super().__init__()
        self.network = network
        self.path = Path(path)
        self._compiled: Any = None

    def _compile(self, shape: torch.Size) -> Any:
        core = _core()
        import openvino

        if not self.path.is_file():
            raise ExportError(
                f"There is no exported network {self.path}. Write it with `python -m monai.bundle "
                "onnx_export`, as docs/deployment.md shows, or give its place as onnx_path."
            )
        model = core.read_model(self.path)
        wanted = model.input(0).partial_shape
        if not wanted.compatible(openvino.PartialShape(list(shape))):
            raise ExportError(
                f"{self.path} takes images of shape {wanted}, got {tuple(shape)}. Export it with "
                f"--input_shape '[2, 3, {shape[2]}, {shape[3]}]' and a dynamic batch, as "
                "docs/deployment.md shows, or give the size that it was exported for."
            )
        return core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the calibrated map ``(B, 1 or 2, H, W)`` of images ``(B, 1 or 3, H, W)`` in [0, 1].

        Raises:
            MissingPackageError: when OpenVINO is not installed.
            ExportError: when the file is missing, takes images of another shape, or gives another
                map than the network does.
        """
        images = plain_tensor(x).expand(-1, 3, -1, -1)
        first = self._compiled is None
        if first:
            self._compiled = self._compile(images.shape)
        maps = torch.from_numpy(np.array(self._compiled(images.numpy())[0]))
        if first:
            difference = float((maps[:1] - self.network(images[:1])).abs().max())
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"{self.path} is not an export of the model in use: their maps differ by "
                    f"{difference:.2g}, allowed is {TOLERANCE}. Export the model again."
                )
        return maps
