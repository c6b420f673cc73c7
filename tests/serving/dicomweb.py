"""A DICOMweb source and a series for it, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydicom import Dataset

from multiad_med.preparation.sources import StudyKind
from multiad_med.serving import DicomwebSource
from tests.dicom_files import ct_slices, random_volume

STUDY = json.dumps({"study": "1.2.3"})


def source(url: str, folder: Path, **options: Any) -> DicomwebSource:
    options = {"kind": StudyKind.MR, "folder": folder / "spool", "settle": 0.0, **options}
    return DicomwebSource(url, **options)


def mr_series(series: str, count: int = 4, **elements: Any) -> list[Dataset]:
    return list(
        ct_slices(
            random_volume(shape=(count, 6, 8)),
            SeriesInstanceUID=series,
            **{"Modality": "MR", **elements},
        )
    )
