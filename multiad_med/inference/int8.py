"""An export in INT8 beside the model whose thresholds were set for it: its files, and its maps."""

from __future__ import annotations

from pathlib import Path

from multiad_med.card import ModelCard
from multiad_med.data.hashes import file_sha256
from multiad_med.inference.openvino import Maps, compiled, openvino_core
from multiad_med.utils.errors import InputError

__all__ = ["INT8", "by_int8", "int8_files", "is_int8", "note_int8"]

INT8 = "openvino_int8"
"""Name of the run-time, on a card and in results."""


def int8_files(model: str | Path) -> list[Path]:
    """Return the files of the export beside a model whose thresholds were set for it."""
    return [Path(model).with_suffix(end) for end in (".xml", ".bin")]


def note_int8(model: str | Path) -> dict[str, str]:
    """Return what the card of a model says of the export beside it."""
    return {"runtime": INT8, "export_sha256": file_sha256(int8_files(model))}


def is_int8(card: ModelCard) -> bool:
    """Return whether a model's thresholds were set for its INT8 export."""
    return card.calibration.get("runtime") == INT8


def by_int8(card: ModelCard, model: str | Path | None, size: tuple[int, int]) -> Maps:
    """Return the maps of the INT8 export beside a model.

    Raises:
        InputError: when it is not there, is another, or is of images of another size.
        MissingPackageError: when OpenVINO is not installed.
    """
    files = int8_files(model or "model.pt")
    if not all(file.is_file() for file in files):
        raise InputError(
            f"{model} was made with the INT8 export {files[0].name}, which is not beside it: keep its "
            ".xml and .bin there, under its name."
        )
    if file_sha256(files) != card.calibration["export_sha256"]:
        raise InputError(
            f"{files[0]} is not the export that {model} was made with. Export it again."
        )
    exported = openvino_core().read_model(files[0])
    wanted = tuple(side.get_length() for side in exported.input(0).partial_shape[2:])
    if wanted != size:
        raise InputError(f"{files[0]} takes images of {wanted} rows and columns, got {size}.")
    return compiled(exported)
