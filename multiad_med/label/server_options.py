"""What a client may ask for: names that become paths, options of an inference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.utils.others.generic import name_to_device

from multiad_med.dicom.read.header import is_uid
from multiad_med.inference.severity import SeverityThresholds

__all__ = [
    "EXTENSIONS",
    "InferOptions",
    "ResultType",
    "check_device",
    "check_name",
    "check_params",
    "check_tag",
    "check_uid",
]

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
"""Formats of a result, the first by default."""


def check_name(name: str, what: str) -> str:
    """Return a name from a request, if it may be part of a path.

    Raises:
        HTTPException: 400 when it could lead to another folder.
    """
    if not name or name in (".", "..") or any(character in name for character in "/\\\0"):
        raise HTTPException(400, f"{what} must be a plain name without folders, got {name!r}.")
    return name


def check_tag(tag: str) -> str:
    """Return a label's tag from a request, or from MONAI Label, whose tags are an enumeration.

    Raises:
        HTTPException: 400 when it could lead to another folder.
    """
    return check_name(str(getattr(tag, "value", tag)), "tag")


def check_uid(name: str, what: str) -> str:
    """Return a DICOM UID from a request.

    Raises:
        HTTPException: 400 when it is none.
    """
    if not is_uid(name):
        raise HTTPException(400, f"{what} must be a DICOM UID, got {name!r}.")
    return name


def check_device(name: Any) -> str:
    """Return the torch device of a request: the first of several names; without any, the best one.

    Raises:
        HTTPException: 400 when it is none.
    """
    device = str(name_to_device(name))
    try:
        torch.device(device)
    except RuntimeError as error:
        raise HTTPException(400, f"device {device!r}: {error}") from error
    return device


def check_params(params: str) -> None:
    """Check the form field ``params`` of a request.

    Raises:
        HTTPException: 400 when it is no JSON object.
    """
    try:
        found = json.loads(params or "{}")
    except ValueError as error:
        raise HTTPException(400, f"params must be a JSON object: {error}.") from error
    if not isinstance(found, dict):
        raise HTTPException(400, f"params must be a JSON object, got {params!r}.")


class ResultType(StrEnum):
    """What an inference's image is, chosen by MONAI Label's parameter ``result_dtype``."""

    LABEL = "uint8"
    """The levels of :mod:`multiad_med.inference.severity`."""
    HEATMAP = "float32"
    """The calibrated map itself."""


@dataclass(frozen=True)
class InferOptions:
    """Options of an inference, as MONAI Label's clients show and send them.

    Attributes:
        levels: lowest map value of each level of the label.
        result: what the answer's image is.
        extension: one of :data:`EXTENSIONS`.
        heatmap: whether the map is stored beside the study as a label with tag ``heatmap``.
    """

    levels: SeverityThresholds = field(default_factory=SeverityThresholds)
    result: ResultType = ResultType.LABEL
    extension: str = EXTENSIONS[0]
    heatmap: bool = False

    @property
    def displayed(self) -> dict[str, Any]:
        """Return what clients show in their options."""
        return {
            "threshold_low": round(self.levels.low, 3),
            "threshold_moderate": round(self.levels.moderate, 3),
            "threshold_high": round(self.levels.high, 3),
            "heatmap": self.heatmap,
        }

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> InferOptions:
        """Return the options in a request.

        Raises:
            HTTPException: 400 when one has a value that is not allowed; the message tells which are.
        """
        default = cls()
        shown = default.displayed
        try:
            values = [
                # A client whose options were not touched sends the rounded default.
                getattr(default.levels, name)
                if (value := float(request.get(key, shown[key]))) == shown[key]
                else value
                for name in ("low", "moderate", "high")
                for key in [f"threshold_{name}"]
            ]
            levels = SeverityThresholds(*values)
        except (TypeError, ValueError) as error:
            raise HTTPException(400, str(error)) from error
        result = request.get("result_dtype") or default.result
        if result not in list(ResultType):
            allowed = [str(known) for known in ResultType]
            raise HTTPException(400, f"result_dtype must be one of {allowed}, got {result!r}.")
        extension = request.get("result_extension") or default.extension
        if extension not in EXTENSIONS:
            raise HTTPException(
                400, f"result_extension must be one of {EXTENSIONS}, got {extension!r}."
            )
        heatmap = request.get("heatmap", default.heatmap)
        if not isinstance(heatmap, bool):
            raise HTTPException(400, f"heatmap must be true or false, got {heatmap!r}.")
        return cls(levels, ResultType(result), extension, heatmap)
