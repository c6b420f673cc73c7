"""MONAI Label's server as ``monailabel start_server --uvicorn_app multiad_med.label.server:app``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import BackgroundTasks, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.endpoints import datastore, infer
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from monailabel.interfaces.utils.app import app_instance

from multiad_med.label.background import mark_server
from multiad_med.label.server_options import check_params
from multiad_med.readers import LoadVolume

__all__ = ["app"]

mark_server()


@app.exception_handler(MONAILabelException)
async def tell(request: Request, error: MONAILabelException) -> JSONResponse:
    """Answer MONAI Label's own errors with their message, instead of a bare 500."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        status = 404
    else:
        status = 400 if error.error is MONAILabelError.INVALID_INPUT else 500
    return JSONResponse({"detail": error.msg}, status_code=status)


_write_segmentation = infer.nifti_to_dicom_seg


def write_segmentation(
    series: str, label: str, label_info: list[dict[str, Any]], **options: Any
) -> str:
    """Write DICOM SEG by MONAI Label, which takes the entries in the order of the values found.

    Raises:
        HTTPException: 422 where the label is empty or dcmqi wrote nothing, which MONAI Label does not
            check.
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


_run_inference = infer.run_inference


def run_inference(
    background_tasks: BackgroundTasks,
    model: str,
    image: str,
    session_id: str,
    params: str,
    file: UploadFile | None,
    label: UploadFile | None,
    output: infer.ResultType | None,
) -> Any:
    """Run MONAI Label's inference, after checking that it can do the request.

    Raises:
        HTTPException: 400 without study and file, 422 where a DICOM SEG is wanted of a file.
    """
    if not (image or session_id or file):
        raise HTTPException(400, "Name a study as image, or send a file.")
    if output == infer.ResultType.dicom_seg and not isinstance(
        app_instance().datastore(), DICOMWebDatastore
    ):
        raise HTTPException(422, "A DICOM SEG can be made of DICOMweb studies only.")
    return _run_inference(background_tasks, model, image, session_id, params, file, label, output)


def _checking_params(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(endpoint)

    @functools.wraps(endpoint)
    def checked(*values: Any) -> Any:
        check_params(signature.bind(*values).arguments["params"])
        return endpoint(*values)

    return checked


infer.run_inference = _checking_params(run_inference)
datastore.add_image = _checking_params(datastore.add_image)
datastore.save_label = _checking_params(datastore.save_label)
