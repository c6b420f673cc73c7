"""A trained network as a file for another runtime: ONNX, OpenVINO, TorchScript."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import convert_to_onnx, convert_to_torchscript
from monai.utils import optional_import

from multiad_med.inference.openvino import save_openvino, to_openvino
from multiad_med.networks import MultiAD, open_model
from multiad_med.networks.folding import folded_only
from multiad_med.utils.atomic import atomic_path
from multiad_med.utils.errors import InputError, missing_package
from multiad_med.utils.sizes import Size, shortest, sides

__all__ = ["export_onnx", "export_openvino", "export_torchscript"]


def sides_of_images(model: str | Path, size: Size | None, told: dict[str, Any]) -> tuple[int, int]:
    """Return the rows and columns of the images, or of the tiles."""
    known: Size | None = told.get("tile") or told.get("size")
    wanted = known or size
    if wanted is None:
        raise InputError(
            f"{model} does not tell the size of its images: it was made by an older version. Give --size."
        )
    if known is not None and size is not None and shortest(size) != shortest(known):
        raise InputError(
            f"{model} takes images of {' by '.join(map(str, sides(known)))}, asked for is {size}. Leave "
            "the size out."
        )
    return sides(wanted)


def _need(*packages: str) -> None:
    for package in packages:
        if not optional_import(package)[1]:
            raise missing_package(package)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _opened(model: str | Path) -> MultiAD:
    """The network, without what its folded batch norms are made of."""
    network = open_model(model).eval()
    folded_only(network)
    return network


def write_onnx(network: MultiAD, target: str | Path, *, size: tuple[int, int]) -> Path:
    """Write a network in evaluation mode as ONNX; see :func:`export_onnx`.

    Raises:
        MissingPackageError: without the extra ``export``.
    """
    _need("onnx", "onnxscript")
    with atomic_path(target) as temporary, _quiet():
        convert_to_onnx(
            network,
            [torch.rand(2, 3, *size)],  # of 1, torch may take the batch for a constant
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": {0: "batch"}},
            filename=temporary,
            external_data=False,
        )
    return Path(target)


def export_onnx(model: str | Path, target: str | Path, *, size: Size | None = None) -> Path:
    """Write a model's network as ONNX: images ``(B, 3, H, W)`` in [0, 1] to maps ``(B, 1 or 2, H, W)``.

    The batch is dynamic; height and width are those that the model was trained with.

    Args:
        model: ``model.pt`` of a finished training.
        target: the file.
        size: side of the images, or rows and columns, where the model's card does not have it.

    Returns:
        The file.

    Raises:
        InputError: when the size is unknown, or differs from the card's.
        MissingPackageError: without the extra ``export``.
        WeightsError, CardError: when the model cannot be opened.
    """
    network = _opened(model)
    return write_onnx(network, target, size=sides_of_images(model, size, network.card.preparation))


def check_xml(target: str | Path) -> Path:
    """Return the path of a file for OpenVINO.

    Raises:
        InputError: when it does not end in ``.xml``.
    """
    if Path(target).suffix != ".xml":
        raise InputError(f"OpenVINO's files end in .xml, got {target}.")
    return Path(target)


def write_openvino(model: Any, target: Path) -> None:
    """Write an ``openvino.Model`` whole: the ``.bin`` is there before the ``.xml`` is."""
    model.input(0).set_names({"image"})
    model.output(0).set_names({"pred"})
    with atomic_path(target) as temporary:
        save_openvino(model, temporary)
        os.replace(temporary.with_suffix(".bin"), target.with_suffix(".bin"))


def export_openvino(model: str | Path, target: str | Path, *, size: Size | None = None) -> Path:
    """Write a model's network for OpenVINO in float32: an ``.xml`` and, beside it, a ``.bin``.

    Args:
        model: ``model.pt`` of a finished training.
        target: the ``.xml`` file.
        size: see :func:`export_onnx`.

    Returns:
        The ``.xml`` file.

    Raises:
        InputError: when ``target`` does not end in ``.xml``; and as of :func:`export_onnx`.
        MissingPackageError: without the extra ``export``.
    """
    target = check_xml(target)
    network = _opened(model)
    height, width = sides_of_images(model, size, network.card.preparation)
    write_openvino(to_openvino(network, [torch.rand(2, 3, height, width)]), target)
    return target


def export_torchscript(model: str | Path, target: str | Path) -> Path:
    """Write a model's network as TorchScript, for any batch and any size of image.

    Args:
        model: ``model.pt`` of a finished training.
        target: the file.

    Returns:
        The file.
    """
    with atomic_path(target) as temporary:
        convert_to_torchscript(_opened(model), filename_or_obj=str(temporary))
    return Path(target)
