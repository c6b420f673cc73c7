"""MONAI Label's server as ``monailabel start_server --uvicorn_app multiad_med.label.server:app``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.endpoints import infer
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from multiad_med.io import LoadVolume

__all__ = ["app"]


@app.exception_handler(MONAILabelException)
async def tell(request: Request, error: MONAILabelException) -> JSONResponse:
    """MONAI Label's own errors as an answer with their message, instead of a bare 500."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        status = 404
    else:
        status = 400 if error.error is MONAILabelError.INVALID_INPUT else 500
    return JSONResponse({"detail": error.msg}, status_code=status)


_write_segmentation = infer.nifti_to_dicom_seg


def write_segmentation(
    series: str, label: str, label_info: list[dict[str, Any]], **options: Any
) -> str:
    """MONAI Label's writer of DICOM SEG, which takes its entries in the order of the values found.

    Raises:
        HTTPException: 422 where the label is empty or dcmqi wrote nothing, which MONAI Label does not
            look at.
    """
    found = set(LoadVolume()(label).unique().int().tolist())
    infos = [
        info
        for info in label_info
        if "segmentAttribute" not in info or info["segmentAttribute"].get("labelID") in found
    ]
    path: str = _write_segmentation(series, label, infos, **options) if found != {0} else ""
    if not path or not Path(path).is_file():
        reason = "its series lacks what dcmqi wants" if found != {0} else "its label is empty"
        raise HTTPException(422, f"No DICOM SEG of {Path(series).name} can be written: {reason}.")
    return path


infer.nifti_to_dicom_seg = write_segmentation
