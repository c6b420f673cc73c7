"""A PACS and a ledger for tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiad_med.serving import StudyLedger
from tests.serving.pacs import SERVER


@pytest.fixture(scope="module")
def orthanc() -> Iterator[str]:
    """Address of the DICOMweb service of a new Orthanc."""
    pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
    with SERVER.orthanc() as url:
        yield url


@pytest.fixture
def ledger(tmp_path: Path) -> StudyLedger:
    """A new ledger, which gives a study two tries."""
    return StudyLedger(tmp_path / "ledger.sqlite", tries=2, lease=5)
