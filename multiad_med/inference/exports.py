"""A network converted for another run-time on this machine, kept so that it is done once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from multiad_med.data.hashes import state_sha256
from multiad_med.inference.export_model import write_onnx
from multiad_med.inference.openvino import (
    Maps,
    compiled,
    openvino_core,
    save_openvino,
    to_openvino,
)
from multiad_med.networks.multiad import MultiAD
from multiad_med.utils.errors import missing_package

__all__ = ["by_onnxruntime", "by_openvino", "exports_dir"]

Size = tuple[int, int]


def exports_dir() -> Path:
    """Return the folder of converted networks, beside torch hub's; it may be deleted at any time."""
    return Path(torch.hub.get_dir()) / "multiad"


def _place(network: MultiAD, size: Size, packages: Sequence[str]) -> Path:
    """Return the folder of a network's export; another network, size or version has another."""
    versions = [f"{name} {version(name)}" for name in ("multiad-med", "torch", *packages)]
    told = "\n".join([state_sha256(network), str(size), *versions])
    return exports_dir() / hashlib.sha256(told.encode()).hexdigest()[:32]


def _keep(place: Path, write: Callable[[Path], object]) -> None:
    """Write the files of an export, all or none; if that cannot be done, it is made again next time."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".partial-", dir=place.parent) as partial:
            whole = Path(partial) / place.name
            whole.mkdir()
            write(whole)
            os.replace(whole, place)
    except (
        OSError,
        RuntimeError,
    ):  # a full disk, a folder to be read only, another process was first
        pass


def by_openvino(network: MultiAD, size: Size) -> Maps:
    """Return a network's maps by OpenVINO, for images of a size.

    Args:
        network: in evaluation mode, with its weights.
        size: rows and columns.

    Raises:
        MissingPackageError: when OpenVINO is not installed.
    """
    core = openvino_core()
    place = _place(network, size, ["openvino"])
    if (file := place / "model.xml").is_file():
        return compiled(core.read_model(file))
    model = to_openvino(network, [torch.rand(2, 3, *size)])
    _keep(place, lambda folder: save_openvino(model, folder / file.name))
    return compiled(model)


def by_onnxruntime(network: MultiAD, size: Size) -> Maps:
    """Return a network's maps by ONNX Runtime, for images of a size.

    Args:
        network: in evaluation mode, with its weights.
        size: rows and columns.

    Raises:
        MissingPackageError: when it is not installed, or what exports to ONNX is not.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime") from error
    place = _place(network, size, ["onnxruntime"])
    if (file := place / "model.onnx").is_file():
        content = file.read_bytes()
    else:
        with TemporaryDirectory(prefix="multiad-") as folder:
            content = write_onnx(network, Path(folder) / file.name, size=size).read_bytes()
        _keep(place, lambda folder: (folder / file.name).write_bytes(content))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def maps(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": images.numpy()})[0])

    return maps
