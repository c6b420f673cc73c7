"""Colour images of the slices with the anomaly map over them, as DICOM secondary captures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from multiad_med.dicom.read.frames import functional_group
from multiad_med.dicom.read.header import text
from multiad_med.dicom.read.pixels import read_slices
from multiad_med.dicom.write.instance import MAKER, AnomalyResult, DicomKind
from multiad_med.visualize.colours import intensity_range, overlaid

__all__ = ["overlays"]

_LETTERS = ("LR", "PA", "HF")
_SLIGHT = 0.05  # a direction cosine below it is left out (3 degrees)


def overlays(result: AnomalyResult) -> Iterator[Dataset]:
    """Yield one RGB image for each slice, in the order of the slices.

    Grey is by the source's window where it states one, else by the series' own range without its
    brightest 0.5 %.
    """
    from highdicom.sc import SCImage

    source = result.source
    frames = source.stack.frames
    volume = read_slices(frames)
    limits = intensity_range(volume)
    fields = result.series(DicomKind.OVERLAY, "Anomaly overlay")
    for place, frame in enumerate(frames):
        header, plane = source.header(place), frame.plane
        grey = _grey(volume[place], _window(header, frame.index), limits)
        colour = np.repeat(grey[..., None], 3, axis=-1)
        image = SCImage.from_ref_dataset(
            header,
            overlaid(colour, result.values[place], threshold=result.threshold),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),  # one letter each; set in full below
            pixel_spacing=plane.spacing,  # type: ignore[arg-type]
            sop_instance_uid=result.uid(DicomKind.OVERLAY, place),
            instance_number=place + 1,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            **fields,
        )
        image.copy_patient_and_study_information(header)
        image.PatientOrientation = [_letters(plane.row), _letters(plane.column)]
        _refer(image, header, frame.index + 1 if source.is_multi_frame else None)
        yield image


def _letters(direction: NDArray[np.floating]) -> str:
    """Return DICOM's letters of a direction in LPS, the nearest axis first."""
    order = np.argsort(-np.abs(direction))
    return "".join(
        _LETTERS[axis][int(direction[axis] < 0)] for axis in order if abs(direction[axis]) > _SLIGHT
    )


def _window(header: Dataset, frame: int) -> Dataset:
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        return header
    return functional_group(
        "FrameVOILUTSequence", groups[frame], header.SharedFunctionalGroupsSequence[0]
    )


def _grey(
    values: NDArray[np.generic], window: Dataset, limits: tuple[float, float]
) -> NDArray[np.uint8]:
    from highdicom.pixels import apply_voi_window

    stated = [np.ravel(window.get(keyword, [])) for keyword in ("WindowCenter", "WindowWidth")]
    if all(len(values) and values[0] is not None for values in stated):
        centre, width = (float(values[0]) for values in stated)
        function = text(window, "VOILUTFunction") or "LINEAR"
    else:
        low, high = limits
        centre, width, function = (low + high) / 2, high - low, "LINEAR_EXACT"
    grey = apply_voi_window(values, centre, width, function, output_range=(0, 255))
    return np.asarray(grey).round().astype(np.uint8)


def _refer(image: Dataset, header: Dataset, frame: int | None) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    image.SourceImageSequence = [reference]
    image.DerivationDescription = f"Anomaly map of {MAKER} over the source image"
    image.BurnedInAnnotation = "NO"
    image.Laterality = header.get("Laterality")
    for keyword in (
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
    ):
        if keyword in header:
            image[keyword] = header[keyword]
