"""OpenVINO: a network converted in memory, and run on the CPU in float32."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multiad_med.utils.errors import missing_package

__all__ = ["compiled", "openvino_core", "save_openvino", "to_openvino"]

Maps = Callable[[Tensor], Tensor]
"""From images ``(B, 3, H, W)`` in [0, 1] to maps ``(B, 1 or 2, H, W)``, on the CPU."""


@cache
def openvino_core() -> Any:
    """Return the process's only ``Core``, which is never destroyed.

    OpenVINO gives the thread that makes one a signal stack of its own. If the first of two is destroyed
    first, the second restores the stack of the first, which is gone. The next signal, such as that of a
    ``DataLoader``'s ending worker, would then end the process with SIGSEGV.

    Raises:
        MissingPackageError: when OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing_package("openvino") from error
    return openvino.Core()


@torch.no_grad()
def to_openvino(module: nn.Module, examples: Sequence[Tensor]) -> Any:
    """Convert a module to an ``openvino.Model``; the batch is dynamic, other sides are the examples'.

    By OpenVINO's front end itself: ``openvino.convert_model`` takes three times as long, and reports its
    use to its makers.

    Args:
        module: in evaluation mode; it is traced.
        examples: an input of each argument.

    Raises:
        MissingPackageError: when OpenVINO is not installed.
    """
    openvino_core()
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # whoever takes it compares maps
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(module, tuple(examples), check_trace=False)
    graph = TorchScriptPythonDecoder(traced)  # the front end does not keep it alive
    front_end = FrontEndManager().load_by_framework("pytorch")
    model = front_end.convert(front_end.load(graph))
    shapes = [openvino.PartialShape([-1, *example.shape[1:]]) for example in examples]
    model.reshape(dict(enumerate(shapes)))
    return model


def save_openvino(model: Any, path: str | Path) -> None:
    """Write a model as ``.xml`` with a ``.bin`` beside it, in the precision that it has."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)


def compiled(model: Any) -> Maps:
    """Return a model as a function, with as many threads as torch has; several threads may call it."""
    run = openvino_core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        },
    )
    one_at_a_time = threading.Lock()  # calls share their buffers

    def maps(images: Tensor) -> Tensor:
        with one_at_a_time:
            return torch.from_numpy(np.array(run(images.numpy())[0]))

    return maps
