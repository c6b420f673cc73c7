"""Writers of small synthetic DICOM files with a chosen geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import compress
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
OPT = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88.11"

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def dicom_object(sop_class: str = CT, modality: str = "CT", **elements: object) -> FileDataset:
    """A DICOM object without pixels; ``elements`` replace or add, None removes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, object] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientID": "P1",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesNumber": 1,
        "Modality": modality,
    }
    for keyword, value in {**values, **elements}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def set_pixels(dataset: Dataset, array: np.ndarray) -> None:
    """Give an object uncompressed grey pixels (rows, columns) or (frames, rows, columns)."""
    dataset.Rows, dataset.Columns = array.shape[-2:]
    if array.ndim == 3:
        dataset.NumberOfFrames = len(array)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    bits = array.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"


def ct_slices(
    volume: np.ndarray,
    *,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-10.0, 20.0, 30.0),
    spacing: Sequence[float] = (0.5, 0.75),
    step: float | Sequence[float] = 5.0,
    slopes: float | Sequence[float] = 1.0,
    intercept: float = -1024.0,
    **elements: object,
) -> list[FileDataset]:
    """Slices of a volume (slices, rows, columns), stacked along their normal.

    ``step`` is (slices - 1) distances, or one for all; ``spacing`` is DICOM's (rows, columns).
    """
    normal = np.cross(orientation[:3], orientation[3:])
    gaps = np.broadcast_to(step, len(volume) - 1) if len(volume) > 1 else np.zeros(0)
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    factors = np.broadcast_to(slopes, len(volume))
    slices = []
    for index, array in enumerate(volume):
        dataset = dicom_object(
            InstanceNumber=index + 1,
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            ImagePositionPatient=[round(x, 6) for x in np.add(origin, along[index] * normal)],
            ImageOrientationPatient=[round(x, 9) for x in orientation],
            PixelSpacing=list(spacing),
            SliceThickness=5.0,
            RescaleSlope=float(factors[index]),
            RescaleIntercept=intercept,
        )
        set_pixels(dataset, array)
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        slices.append(dataset)
    return slices


def save(
    slices: Sequence[Dataset], folder: Path, *, seed: int | None = None, suffix: str = ".dcm"
) -> Path:
    """Write objects into a folder; with a seed their names are in another order than the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.arange(len(slices))
    if seed is not None:
        names = np.random.default_rng(seed).permutation(names)
    for name, dataset in zip(names, slices, strict=True):
        dataset.save_as(folder / f"im{name:03d}{suffix}", enforce_file_format=True)
    return folder


def compressed(slices: Sequence[FileDataset], syntax: str) -> list[FileDataset]:
    """Compress objects in place."""
    for dataset in slices:
        compress(dataset, syntax)
    return list(slices)


def multiframe(
    frames: np.ndarray,
    *,
    sop_class: str = ENHANCED_CT,
    modality: str = "CT",
    positions: Sequence[Sequence[float]] | None = None,
    orientation: Sequence[float] | None = AXIAL,
    spacing: Sequence[float] = (0.5, 0.75),
    between: float | None = None,
    thickness: float | None = None,
    slopes: Sequence[float] | None = None,
    intercept: float = -1024.0,
) -> FileDataset:
    """A multi-frame object with functional groups; frames are (frames, rows, columns)."""
    dataset = dicom_object(sop_class, modality)
    set_pixels(dataset, frames)
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing = list(spacing)
    if between is not None:
        measures.SpacingBetweenSlices = between
    if thickness is not None:
        measures.SliceThickness = thickness
    shared.PixelMeasuresSequence = Items([measures])
    if orientation is not None:
        plane = Dataset()
        plane.ImageOrientationPatient = list(orientation)
        shared.PlaneOrientationSequence = Items([plane])
    groups = []
    for index in range(len(frames)):
        group = Dataset()
        if positions is not None:
            place = Dataset()
            place.ImagePositionPatient = list(positions[index])
            group.PlanePositionSequence = Items([place])
        values = Dataset()
        values.RescaleSlope = 1.0 if slopes is None else slopes[index]
        values.RescaleIntercept = intercept
        group.PixelValueTransformationSequence = Items([values])
        groups.append(group)
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    return dataset


def random_volume(
    seed: int = 0, shape: tuple[int, int, int] = (4, 6, 8), dtype: str = "uint16"
) -> np.ndarray:
    """Random stored values (slices, rows, columns)."""
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(dtype)
