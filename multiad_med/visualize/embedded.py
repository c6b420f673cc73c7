"""Base64 data of a page: volumes as small integers in a gzipped NIfTI, images as JPEG."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray
from PIL import Image

from multiad_med.visualize.viewed_study import ViewedStudy

__all__ = ["LARGEST", "MAP_STEP", "embedded_image", "embedded_jpeg", "embedded_map", "halved"]

LARGEST = 32_000_000
"""Most voxels of a page; with more, browsers become slow and pages exceed 50 MB."""

MAP_STEP = 0.004
"""Maps are rounded down to multiples of this, so that 0.5 is reached where the map reaches 0.5."""

_HOUNSFIELD = (-1024, 3071)
_LEVELS = 4095


def _pairs(values: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the first and second values of pairs along an axis; a last one alone is repeated."""
    if values.shape[axis] % 2:
        values = np.concatenate([values, values.take([-1], axis=axis)], axis=axis)
    moved = values.swapaxes(0, axis)
    return moved[0::2].swapaxes(0, axis), moved[1::2].swapaxes(0, axis)


def halved(study: ViewedStudy, *, largest: int = LARGEST) -> ViewedStudy:
    """Return a study with half as many voxels along the first two axes, until it has ``largest`` at most.

    Pairs are averaged in the image; in the map the higher value is kept. Slices stay as they are.
    """
    while study.image.size > largest and max(study.image.shape[:2]) > 1:
        image, heat = study.image, study.anomaly_map
        for axis in (0, 1):
            first, second = _pairs(image, axis)
            image = (first.astype(np.float32) + second) / 2
            heat = np.maximum(*_pairs(heat, axis))
        larger = np.diag([2.0, 2.0, 1.0, 1.0])
        larger[:2, 3] = 0.5  # the centre of a pair
        study = replace(
            study,
            image=image,
            anomaly_map=heat,
            affine=study.affine @ larger,
            to_source=study.to_source @ larger,
        )
    return study


def _base64(
    values: NDArray[np.integer], affine: NDArray[np.float64], slope: float, intercept: float
) -> str:
    """Return a NIfTI with a new header, which has nothing of the study's file but the affine."""
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = slope, intercept
    content = header.binaryblock + bytes(4) + values.tobytes(order="F")
    return base64.b64encode(igzip.compress(content, 3, mtime=0)).decode("ascii")


def embedded_image(study: ViewedStudy) -> str:
    """Return the image as int16: a CT in whole HU from -1024 to 3071, others in at most 4096 levels."""
    if study.hounsfield:
        whole = np.rint(study.image).clip(*_HOUNSFIELD).astype(np.int16)
        return _base64(whole, study.affine, 1.0, 0.0)
    low, high = float(study.image.min()), float(study.image.max())
    exact = study.image.dtype.kind in "iu" and high - low <= _LEVELS
    slope = 1.0 if exact else (high - low) / _LEVELS
    levels = np.rint((study.image.astype(np.float32) - low) / slope).astype(np.int16)
    return _base64(levels, study.affine, slope, low)


def embedded_map(study: ViewedStudy) -> str:
    """Return the map as uint8, in steps of :data:`MAP_STEP`."""
    # A float32 just below a step by its rounding alone belongs to it.
    steps = np.floor(study.anomaly_map / np.float32(MAP_STEP) + np.float32(1e-4)).astype(np.uint8)
    return _base64(steps, study.affine, MAP_STEP, 0.0)


def embedded_jpeg(image: Image.Image, **options: Any) -> str:
    """Return the image as the data URL of a JPEG; ``options`` are Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
