"""What a PACS answers to MONAI Label's datastore, where it is not what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset

from multiad_med.serving.answers import WebPageError
from tests.serving.pacs import head_series


class FakeClient:
    """A server that says what it is told to."""

    base_url = "http://pacs/dicom-web"

    def __init__(self, found: Any, instances: Any = ()) -> None:
        self.found, self.instances = found, instances

    def search_for_series(self, **_: Any) -> list[dict[str, Any]]:
        if isinstance(self.found, Exception):
            raise self.found
        return list(self.found)

    def retrieve_series(self, *_: Any, **__: Any) -> list[Dataset]:
        if isinstance(self.instances, Exception):
            raise self.instances
        return list(self.instances)


def listed(study: str = "1.2.3.71", count: int = 6) -> dict[str, Any]:
    answer: dict[str, Any] = {"00201209": {"vr": "IS", "Value": [count]}}
    if study:
        answer["0020000D"] = {"vr": "UI", "Value": [study]}
    return answer


def series(client: FakeClient, folder: Path) -> Path:
    from multiad_med.label.datastores import SeriesDatastore

    made = object.__new__(SeriesDatastore)
    made._client = client
    return made._series(folder / "1.2.3.71.1")


@pytest.mark.parametrize(
    ("client", "status", "message"),
    [
        (lambda: FakeClient([]), 404, "There is no series"),
        (lambda: FakeClient([listed(study="")]), 502, "no StudyInstanceUID"),
        (lambda: FakeClient(WebPageError("a web page came")), 502, "a web page came"),
        (lambda: FakeClient(requests.ReadTimeout()), 502, "no answer in time"),
        (lambda: FakeClient([listed()], ValueError("no boundary")), 502, "is not DICOM"),
        (lambda: FakeClient([listed()], head_series("71")[:5]), 502, "5 of 6 instances"),
        (lambda: FakeClient([listed()], head_series("72")), 502, "another series"),
    ],
)
def test_it_is_told_as_what_it_is_and_nothing_is_kept(
    client: Callable[[], FakeClient], status: int, message: str, tmp_path: Path
) -> None:
    from fastapi import HTTPException

    with pytest.raises(HTTPException, match=message) as error:
        series(client(), tmp_path)
    assert error.value.status_code == status
    assert not (tmp_path / "1.2.3.71.1").exists()


def test_a_whole_series_is_kept(tmp_path: Path) -> None:
    folder = series(FakeClient([listed()], head_series("71")), tmp_path)
    assert len(list(folder.iterdir())) == 6
