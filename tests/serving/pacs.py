"""The Orthanc of docs/examples/orthanc for tests, where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pydicom import Dataset

from multiad_med.testing.brains import head
from tests.dicom_files import ct_slices

EXAMPLES = Path(__file__).parents[2] / "docs/examples/orthanc"


def _server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("orthanc_server", EXAMPLES / "orthanc_server.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SERVER = _server()
needs_orthanc = pytest.mark.skipif(bool(SERVER.missing()), reason=SERVER.missing() or "-")


def head_series(name: str, *, seed: int = 0, slices: int = 6, patient: str = "P1") -> list[Dataset]:
    """A small head as an MR series of a study of its own, as a PACS takes it."""
    volume = head(np.random.default_rng(seed), (32, 32, slices)).clip(0).astype(np.uint16)
    datasets = ct_slices(
        volume.transpose(2, 1, 0),
        intercept=0.0,
        spacing=(4.0, 4.0),
        step=8.0,
        Modality="MR",
        PatientID=patient,
        PatientName=patient,
        FrameOfReferenceUID=f"1.2.3.{name}.3",
        StudyInstanceUID=f"1.2.3.{name}",
        SeriesInstanceUID=f"1.2.3.{name}.1",
    )
    for number, dataset in enumerate(datasets, start=1):
        dataset.SOPInstanceUID = f"1.2.3.{name}.1.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return list(datasets)
