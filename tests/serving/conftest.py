"""A PACS and a model for tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiad_med.testing.cohorts import write_fake_model
from tests.serving.pacs import SERVER


@pytest.fixture(scope="module")
def orthanc() -> Iterator[str]:
    """Address of the DICOMweb service of a new Orthanc."""
    pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
    with SERVER.orthanc() as url:
        yield url


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the brain bundle."""
    return write_fake_model("multiad_brain_mri", tmp_path_factory.mktemp("model") / "model.pt")
