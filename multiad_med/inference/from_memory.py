"""Volumes and images in memory, written as files so that inference reads them like any file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from multiad_med.utils.errors import InputError

__all__ = ["write_image", "write_volume"]


def _numbers(values: Any) -> NDArray[Any]:
    """Return real numbers in a type that files can hold."""
    if isinstance(values, torch.Tensor):
        # numpy has no bfloat16.
        values = (values.float() if values.is_floating_point() else values).numpy(force=True)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"An array of numbers is needed, got one of {array.dtype}.")
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" or array.dtype.itemsize > 4:
        return array.astype(np.float32, copy=False)
    return array


def write_volume(volume: Any, affine: ArrayLike | None, stem: Path) -> str:
    """Write a volume as NIfTI.

    Args:
        volume: nibabel image, or array or tensor ``(X, Y, Z)`` or ``(1, X, Y, Z)``.
        affine: ``(4, 4)`` of an array, from voxels to RAS+ in mm. Images and MetaTensors have their own.
        stem: of the file's path.

    Returns:
        The path.

    Raises:
        InputError: when the array has another form, or there are two affines or none.
    """
    path = f"{stem}.nii"
    own = isinstance(volume, (nib.spatialimages.SpatialImage, MetaTensor))
    if own and affine is not None:
        raise InputError(
            f"A {type(volume).__name__} has an affine of its own; leave the argument out."
        )
    if isinstance(volume, nib.spatialimages.SpatialImage):
        image = volume if isinstance(volume, nib.Nifti1Pair) else nib.Nifti1Image.from_image(volume)
        nib.save(image, path)
        return path
    array = _numbers(volume)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise InputError(
            f"A volume is an array (X, Y, Z) or (1, X, Y, Z), got {tuple(array.shape)}. Give one of "
            "several sequences or time points."
        )
    if isinstance(volume, MetaTensor):
        affine = volume.affine.numpy(force=True)
    if affine is None:
        raise InputError(
            "An array has no place in space: give affine, (4, 4), from voxels to RAS+ in mm, such as "
            "np.diag([1, 1, 3, 1]) for slices 3 mm apart."
        )
    matrix = np.asarray(affine, dtype=float)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.linalg.det(matrix):
        raise InputError(
            f"affine is a finite (4, 4) matrix that can be inverted, got {matrix.tolist()}."
        )
    image = nib.Nifti1Image(array, matrix)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def write_image(image: Any, stem: Path) -> str:
    """Write an image as PNG of 8 or 16 bits.

    Args:
        image: array ``(rows, columns)`` or ``(rows, columns, 3)``, or tensor ``(C, rows, columns)``;
            uint8, uint16 (grey only), or floating-point in [0, 1].
        stem: of the file's path.

    Returns:
        The path.

    Raises:
        InputError: when the array has another form or other values.
    """
    array = _numbers(image)
    if isinstance(image, torch.Tensor) and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    grey = array.ndim == 2
    if not grey and (array.ndim != 3 or array.shape[-1] != 3):
        raise InputError(
            "An image is an array (rows, columns) or (rows, columns, 3), or a tensor (C, rows, columns) "
            f"with C 1 or 3; got {tuple(np.shape(image))}."
        )
    if array.dtype == np.float32:
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError(
                f"Floating-point images are in [0, 1], got {array.min():g} to {array.max():g}. Divide by "
                "the highest value that the camera gives."
            )
        top = 65535 if grey else 255
        array = np.rint(array * np.float32(top)).astype(np.uint16 if grey else np.uint8)
    if array.dtype not in ((np.uint8, np.uint16) if grey else (np.uint8,)):
        raise InputError(
            f"Images are uint8, uint16 (grey only) or floating-point in [0, 1], got {array.dtype}."
        )
    path = f"{stem}.png"
    Image.fromarray(np.ascontiguousarray(array)).save(path)
    return path
