"""MONAI Label's server as ``monailabel start_server --uvicorn_app multiad_med.label.server:app``."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

__all__ = ["app"]


@app.exception_handler(MONAILabelException)
async def tell(request: Request, error: MONAILabelException) -> JSONResponse:
    """MONAI Label's own errors as an answer with their message, instead of a bare 500."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        status = 404
    else:
        status = 400 if error.error is MONAILabelError.INVALID_INPUT else 500
    return JSONResponse({"detail": error.msg}, status_code=status)
