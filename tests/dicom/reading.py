"""Read DICOM by our reader, for tests."""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor
from monai.transforms import LoadImage

from multiad_med.dicom.read.reader import DicomSeriesReader


def load(path: object, reader: object = None) -> MetaTensor:
    reader = reader or DicomSeriesReader()
    return LoadImage(reader=reader, ensure_channel_first=True, image_only=True)(path)


def read(path: object, **options: object) -> tuple[np.ndarray, dict]:
    reader = DicomSeriesReader(**options)
    return reader.get_data(reader.read(path))
