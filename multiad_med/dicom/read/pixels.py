"""DICOM pixel data as real values, after a check that decoding them is safe and meaningful."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, iter_pixels
from pydicom.uid import RLELossless

from multiad_med.dicom.read.codestream import codestream_shape
from multiad_med.dicom.read.frames import Frame
from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.header import dicom_errors, text

__all__ = ["check_pixels", "read_slices"]

_RATIO = 1000
_FLOOR = 64 * 2**20
_PACKAGES = {
    "High-Throughput JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG-LS": "pyjpegls",
    "JPEG Lossless": "'multiad-med[gdcm]'",
    "JPEG": "pillow",
}


def check_pixels(header: Dataset, path: Path) -> None:
    """Refuse pixel data that is not one grey value per pixel, or cannot be decoded safely.

    The size that the header declares is checked against the file before anything is allocated:
    uncompressed pixels must be there in full; compressed ones may expand 1000-fold, or to 64 MiB.

    Raises:
        DicomSeriesError: colour, MONOCHROME1, a table instead of slope and intercept, unknown sizes,
            a truncated file, an absurd expansion, or a transfer syntax that nothing installed decodes
            (the message names the package to install).
    """
    samples, photometric = (
        header.get("SamplesPerPixel", 1),
        text(header, "PhotometricInterpretation"),
    )
    if samples != 1 or photometric != "MONOCHROME2":
        raise DicomSeriesError(
            f"{path}: expected grey values (SamplesPerPixel 1, PhotometricInterpretation MONOCHROME2), "
            f"got SamplesPerPixel {samples} and {photometric or 'none'}. Colour and inverted images "
            "(MONOCHROME1) are not read; convert the series at its source."
        )
    if header.get("ModalityLUTSequence"):
        raise DicomSeriesError(
            f"{path}: real values are given by a ModalityLUTSequence, which is not read; expected "
            "RescaleSlope and RescaleIntercept."
        )
    if header.get("BitsAllocated") not in (8, 16, 32):
        raise DicomSeriesError(
            f"{path}: BitsAllocated must be 8, 16 or 32, got {header.get('BitsAllocated')}."
        )
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise DicomSeriesError(
            f"{path}: the file states no TransferSyntaxUID, so its pixels cannot be decoded."
        )
    frames = int(header.get("NumberOfFrames") or 1)
    size = int(header.Rows) * int(header.Columns) * frames * int(header.BitsAllocated) // 8
    if size < 1:
        raise DicomSeriesError(f"{path}: Rows, Columns and NumberOfFrames must be at least 1.")
    stored = path.stat().st_size
    allowed = max(_FLOOR, _RATIO * stored) if syntax.is_compressed else stored
    if size > allowed:
        raise DicomSeriesError(
            f"{path}: the header declares {size} bytes of pixels, but the file has {stored} bytes, "
            f"which can hold {allowed} at most. The file is truncated or damaged, or has no pixels."
        )
    _check_decodable(str(syntax), path)


def read_slices(frames: Sequence[Frame]) -> np.ndarray:
    """Decode slices and apply each one's own slope and intercept.

    Padding (PixelPaddingValue, PixelPaddingRangeLimit) gets the lowest value of all other pixels.

    Args:
        frames: slices of one size, all the slices of their files.

    Returns:
        (slices, rows, columns), in the order given: int16 if every value is whole and fits, else
        float32.

    Raises:
        DicomSeriesError: when a file cannot be decoded.
    """
    rows, columns = frames[0].plane.rows, frames[0].plane.columns
    places: dict[Path, dict[int, int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(frame.path, {})[frame.index] = place
    volume = np.zeros((len(frames), rows, columns), dtype=np.int16)
    padded = {place: frame.padding for place, frame in enumerate(frames) if frame.padding}
    padding = np.zeros(volume.shape if padded else (0,), dtype=bool)
    for path, wanted in places.items():
        with dicom_errors(path):
            found = 0
            _check_codestreams(path, len(wanted), (rows, columns))
            for index, stored in zip(range(len(wanted)), iter_pixels(path, raw=True), strict=False):
                if stored.shape != (rows, columns):
                    raise DicomSeriesError(
                        f"{path}: frame {index + 1} has shape {stored.shape}, but its header states "
                        f"{(rows, columns)}. The file is damaged."
                    )
                place = wanted[index]
                if place in padded:
                    low, high = padded[place]
                    padding[place] = outside = (stored >= low) & (stored <= high)
                    inside = stored[~outside]
                    stored = np.where(outside, inside.min() if inside.size else 0, stored)
                values = _rescaled(stored, frames[place].slope, frames[place].intercept)
                volume = volume.astype(np.promote_types(volume.dtype, values.dtype), copy=False)
                volume[place] = values
                found += 1
            if found < len(wanted):
                raise DicomSeriesError(
                    f"{path}: {found} of {len(wanted)} frames are there. The file is truncated."
                )
    if padding.any() and not padding.all():
        volume[padding] = volume[~padding].min()
    return volume


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    values = stored.astype(np.float64) * slope + intercept
    limits = np.iinfo(np.int16)
    whole = slope.is_integer() and intercept.is_integer()
    if whole and values.min() >= limits.min and values.max() <= limits.max:
        return values.astype(np.int16)
    return values.astype(np.float32)


def _check_decodable(syntax: str, path: Path) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DicomSeriesError(
            f"{path}: transfer syntax {syntax} is not one whose pixels can be decoded. Convert "
            "the series to Explicit VR Little Endian."
        ) from None
    if not decoder.is_available:
        name = decoder.UID.name
        package = next(p for prefix, p in _PACKAGES.items() if name.startswith(prefix))
        raise DicomSeriesError(
            f"{path}: no decoder for transfer syntax {name} ({syntax}) is installed. Run "
            f"`pip install {package}`, or convert the series to Explicit VR Little Endian."
        )


def _check_codestreams(path: Path, frames: int, shape: tuple[int, int]) -> None:
    dataset = dcmread(path, defer_size=1024)
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax == RLELossless:
        return
    for index, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=frames)):
        stated = codestream_shape(frame)
        if stated != shape:
            raise DicomSeriesError(
                f"{path}: frame {index + 1} is compressed with shape {stated or 'unknown'}, but the "
                f"header states {shape}. The file is damaged."
            )
