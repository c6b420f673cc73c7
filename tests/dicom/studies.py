"""Series with their maps and scores, as inference leaves them, to make DICOM results of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom import Dataset, dcmread

from multiad_med.data.hashes import file_sha256
from multiad_med.dicom.write.results import DicomKind, write_dicom_results
from multiad_med.readers.load_volume import LoadVolume
from multiad_med.testing.brains import write_nifti
from tests.dicom_files import AXIAL, ct_slices, random_volume, save

SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
# Rows and columns of a rotation about all three axes.
OBLIQUE = (0.8, 0.36, 0.48, -0.6, 0.48, 0.64)
ORIENTATIONS = {
    "axial": AXIAL,
    "axial, feet first": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "sagittal": SAGITTAL,
    "coronal": CORONAL,
    "oblique": OBLIQUE,
}

PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Müller^Jörg",
    "PatientID": "P7",
    "PatientBirthDate": "19700203",
    "PatientSex": "M",
    "StudyDate": "20240506",
    "StudyTime": "101112",
    "StudyID": "S9",
    "AccessionNumber": "A42",
    "StudyDescription": "Abdomen",
    "ReferringPhysicianName": "House^Greg",
    "FrameOfReferenceUID": "1.2.3.9",
}

SCORES: dict[str, Any] = {
    "volume_score": 0.875,
    "volume_p_value": 0.03125,
    "volume_flagged": True,
    "verdict": "anomalous",
    "thresholds": {"map": 0.5, "slice_score": 0.5625, "volume_score": 0.625},
    "model_sha256": "ab" * 32,
    "versions": {"multiad-med": "0.1.0", "monai": "1.6.1"},
}


@dataclass(frozen=True)
class Study:
    """A series, its map on its own grid, and where both lie."""

    series: Path
    map_path: Path
    scores: dict[str, Any]

    @property
    def anomaly_map(self) -> nib.Nifti1Image:
        return nib.load(self.map_path)

    @property
    def headers(self) -> list[Dataset]:
        files = sorted(self.series.iterdir()) if self.series.is_dir() else [self.series]
        return [dcmread(path) for path in files]

    def write(self, output: Path, *kinds: DicomKind, **options: Any) -> dict[DicomKind, list[Path]]:
        given = {
            "source": self.series,
            "anomaly_map": self.map_path,
            "scores": self.scores,
            "kinds": set(kinds) or set(DicomKind),
        }
        return write_dicom_results(output_dir=output, **{**given, **options})

    def read(self, output: Path, kind: DicomKind, **options: Any) -> Dataset:
        """Write one kind, and read its first file."""
        return dcmread(self.write(output, kind, **options)[kind][0])


def graded_map(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Values in [0, 1) of all levels; the first and the last slice are below them."""
    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    values[..., [0, -1]] *= 0.4
    return values


def study_of(series: Path, values: np.ndarray | None = None) -> Study:
    """The series with a map (X, Y, Z) beside it, by default one of all levels."""
    volume = LoadVolume()(series)
    shape = volume.shape[1:]
    values = graded_map(shape) if values is None else values
    path = write_nifti(
        series.parent / "study_anomaly_map.nii.gz", values, volume.affine.numpy().astype(float)
    )
    return Study(series, path, {**SCORES, "image_sha256": file_sha256(series)})


def make_study(
    folder: Path,
    *,
    orientation: Sequence[float] = AXIAL,
    shape: tuple[int, int, int] = (5, 12, 10),
    values: np.ndarray | None = None,
    **elements: Any,
) -> Study:
    """A CT of single slices, its files in no order; ``shape`` is slices, rows, columns."""
    slices = ct_slices(
        random_volume(shape=shape), orientation=orientation, **{**PATIENT, **elements}
    )
    return study_of(save(slices, folder / "series", seed=1), values)
