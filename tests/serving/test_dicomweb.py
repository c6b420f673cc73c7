"""A DICOMweb server: what it says is checked, what it is given it must keep, and it may be away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from multiad_med.data import StudyError
from multiad_med.dicom.read import DicomSeriesError
from multiad_med.serving import DicomwebSource, FoundStudy, PassedOverError, SourceUnavailableError
from tests.dicom_files import save
from tests.serving.dicomweb import STUDY, mr_series, source

pytest.importorskip("dicomweb_client", reason="needs the extra pacs")


class FakeClient:
    """A server that says what it is told to."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def search_for_series(self, *, offset: int, **_: Any) -> list[dict[str, Any]]:
        pages: list[list[dict[str, Any]]] = self.answers["pages"]
        return next((page for page in pages if offset == page[0]["at"]), [])

    def iter_series(self, *_: Any, **__: Any) -> Iterator[Dataset]:
        return iter(self.answers["instances"])

    def store_instances(self, datasets: list[Dataset]) -> Dataset:
        answer: Dataset = self.answers["answer"](datasets)
        return answer


def listed(series: str, at: int = 0, count: int = 4, study: str = "1.2.3") -> dict[str, Any]:
    return {
        "at": at,
        "0020000D": {"Value": [study]},
        "0020000E": {"Value": [series]},
        "00201209": {"Value": [count]},
    }


def with_answers(folder: Path, **answers: Any) -> DicomwebSource:
    made = source("http://127.0.0.1:9", folder)
    made._client = FakeClient(**answers)
    return made


def test_pages_are_read_to_their_end_and_series_that_cannot_be_asked_for_are_on_record(
    tmp_path: Path,
) -> None:
    pages = [
        [listed("1.1"), listed("../../x")],
        [listed("1.2", at=2), listed("1.3", study=".."), listed("1.4", study=""), listed("")],
    ]
    made = with_answers(tmp_path, pages=pages)
    found = made.find()
    assert [study.key for study in found.studies] == ["1.1", "../../x", "1.2", "1.3", "1.4"]
    assert found.studies[0] == FoundStudy("1.1", "4", STUDY)
    assert found.nameless == 1
    for number, message in ((1, "is no UID"), (3, "is no UID"), (4, "no StudyInstanceUID for it")):
        with pytest.raises(StudyError, match=message):
            made.fetch(found.studies[number])
        made.release(found.studies[number])


def test_a_series_is_complete_when_no_instance_came_for_the_settle_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = with_answers(tmp_path, pages=[[listed("1.1", count=3)]])
    made.settle, now = 30.0, [0.0]
    monkeypatch.setattr("multiad_med.serving.dicomweb.time.monotonic", lambda: now[0])
    expected = {0.0: 0, 29.0: 0, 30.0: 1}
    for now[0], complete in expected.items():
        assert len(made.find().studies) == complete
    made._client.answers["pages"] = [[listed("1.1", count=4)]]
    for now[0], complete in ((31.0, 0), (60.0, 0), (61.0, 1)):
        found = made.find()
        assert (len(found.studies), found.unsettled) == (complete, 1 - complete)
    assert found.studies[0].version == "4"


@pytest.mark.parametrize("page", [["text"], [{"0020000E": None}], [{"0020000E": ["1.1"]}], [None]])
def test_an_answer_that_is_not_dicoms_json_is_a_server_that_does_not_answer(
    tmp_path: Path, page: list[Any]
) -> None:
    made = with_answers(tmp_path)
    made._client.search_for_series = lambda **_: page
    with pytest.raises(SourceUnavailableError, match="not DICOM's JSON"):
        made.find()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SOPInstanceUID": "../../../tmp/evil"}, "is no UID"),
        ({"SOPInstanceUID": "/tmp/evil"}, "is no UID"),
        ({"SeriesInstanceUID": "1.9"}, "an instance of another series"),
    ],
)
def test_instances_that_are_not_what_was_asked_for_are_refused_and_nothing_is_left(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    instances = mr_series("1.1")
    for keyword, value in change.items():
        setattr(instances[2], keyword, value)
    made = with_answers(tmp_path, instances=instances)
    with pytest.raises(StudyError, match=message):
        made.fetch(FoundStudy("1.1", "4", STUDY))
    assert list((tmp_path / "spool").iterdir()) == []
    with pytest.raises(StudyError, match="is no UID"):
        made.fetch(FoundStudy("../1.1", "4", STUDY))
    made.release(FoundStudy("..", "4", STUDY))
    assert tmp_path.is_dir()


def test_a_series_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    made = with_answers(tmp_path, instances=mr_series("1.1")[:3])
    with pytest.raises(StudyError, match="sent 3 of 4 instances"):
        made.fetch(FoundStudy("1.1", "4", STUDY))


def test_a_series_of_another_modality_is_passed_over_whatever_the_search_says(
    tmp_path: Path,
) -> None:
    made = with_answers(tmp_path, instances=mr_series("1.1", Modality="CT"))
    with pytest.raises(PassedOverError, match=r"modality.*\bCT\b.*\bMR\b"):
        made.fetch(FoundStudy("1.1", "4", STUDY))


def test_a_damaged_series_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    instances = mr_series("1.1")
    for instance in instances:
        del instance.Rows
    made = with_answers(tmp_path, instances=instances)
    with pytest.raises(DicomSeriesError, match="Rows and Columns"):
        made.fetch(FoundStudy("1.1", "4", STUDY))


def stored_answer(kept: list[Dataset], failed: dict[str, int]) -> Dataset:
    answer = Dataset()
    answer.ReferencedSOPSequence = [Dataset() for _ in kept]
    for item, dataset in zip(answer.ReferencedSOPSequence, kept, strict=True):
        item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    answer.FailedSOPSequence = [Dataset() for _ in failed]
    for item, (uid, reason) in zip(answer.FailedSOPSequence, failed.items(), strict=True):
        item.ReferencedSOPInstanceUID, item.FailureReason = uid, reason
    return answer


def test_what_the_server_does_not_keep_is_an_error_and_a_duplicate_is_none(tmp_path: Path) -> None:
    objects = mr_series("1.1", count=2)
    files = sorted(save(objects, tmp_path / "results").iterdir())
    second = str(objects[1].SOPInstanceUID)
    answers = {
        "all": stored_answer(objects, {}),
        "duplicate": stored_answer(objects[:1], {second: 0x0111}),
        "silence": stored_answer([], {}),
        "no room": stored_answer(objects[:1], {second: 0xA700}),
    }
    for name in ("all", "duplicate"):
        with_answers(tmp_path, answer=lambda _, name=name: answers[name]).store(files)
    with pytest.raises(StudyError, match=r"\b2 of 2 results"):
        with_answers(tmp_path, answer=lambda _: answers["silence"]).store(files)
    with pytest.raises(StudyError, match=r"\b1 of 2 results\b.*0xa700"):
        with_answers(tmp_path, answer=lambda _: answers["no room"]).store(files)
