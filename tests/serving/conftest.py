"""A PACS for tests of the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.pacs import SERVER


@pytest.fixture(scope="module")
def orthanc() -> Iterator[str]:
    """Address of the DICOMweb service of a new Orthanc."""
    pytest.importorskip("dicomweb_client", reason="needs the extra pacs")
    with SERVER.orthanc() as url:
        yield url
