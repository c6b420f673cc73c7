"""A DICOMweb server: what it says is checked, what it is given it must keep, and it may be away."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGLSLossless

from multiad_med.data import StudyError
from multiad_med.dicom.read import DicomSeriesError
from multiad_med.preparation.sources import StudyKind
from multiad_med.serving import (
    DicomwebSource,
    FoundStudy,
    PassedOverError,
    ServingError,
    SourceUnavailableError,
)
from tests.dicom_files import compressed, ct_slices, dicom_object, random_volume, save
from tests.serving.pacs import needs_orthanc

pytest.importorskip("dicomweb_client", reason="needs the extra pacs")

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
    for number, message in ((1, "is no UID"), (3, "is no UID"), (4, "no StudyInstanceUID of it")):
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


class Answer:
    """What the server says to QIDO, and to WADO and STOW."""

    def __init__(self) -> None:
        self.status = 200
        self.search = (200, "application/dicom+json", b"[]")
        self.media = ""
        self.body = b""
        self.hang = ""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[tuple[str, Answer]]:
    """A server that closes the connection after its answer and tells no length, and its answers."""
    answer = Answer()
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            search = self.command == "GET" and "/studies/" not in self.path
            if answer.hang in ("all", "search" if search else "others"):
                over.wait(30)
            status, media, body = (
                answer.search if search else (answer.status, answer.media, answer.body)
            )
            if answer.status not in (200, 204):
                status = answer.status
            self.send_response(status)
            if media:
                self.send_header("Content-Type", media)
            self.end_headers()
            self.wfile.write(body)
            if answer.hang == "middle" and not search:
                self.wfile.flush()
                over.wait(30)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *_: Any) -> None: ...

    running = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/dicom-web", answer
    over.set()
    running.shutdown()
    running.server_close()


MULTIPART = 'multipart/related; type="application/dicom"; boundary="b0"'


def multipart(datasets: list[Dataset]) -> bytes:
    body = b""
    for dataset in datasets:
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        body += b"\r\n--b0\r\nContent-Type: application/dicom\r\n\r\n" + stream.getvalue()
    return body + b"\r\n--b0--\r\n"


def fetching(made: DicomwebSource) -> None:
    made.fetch(FoundStudy("1.1", "4", STUDY))


def test_a_whole_answer_is_a_series(server: tuple[str, Answer], tmp_path: Path) -> None:
    url, answer = server
    answer.media, answer.body = MULTIPART, multipart(mr_series("1.1"))
    fetched = source(url, tmp_path).fetch(FoundStudy("1.1", "4", STUDY))
    assert len(fetched.files) == 4


@pytest.mark.parametrize(
    ("status", "media", "body", "message"),
    [
        (204, "", b"", r"nothing came \(HTTP status 204\)"),
        (200, "", b"", r"nothing came \(HTTP status 200\)"),
        (200, MULTIPART, b"", "its answer is cut"),
        (200, MULTIPART, b"\r\n--b0--\r\n", "sent no instance"),
        (200, MULTIPART, multipart(mr_series("1.1")[:3]), "sent 3 of 4 instances"),
        (200, MULTIPART, multipart(mr_series("1.1"))[:-100], "its answer is cut"),
        (200, MULTIPART, multipart(mr_series("1.1"))[:-9], "its answer is cut"),
        (200, MULTIPART, multipart(mr_series("1.1"))[:200], "its answer is cut"),
        (200, "application/json", b"{}", "application/json.*instead of DICOM"),
        (
            200,
            MULTIPART,
            b"\r\n--b0\r\nContent-Type: text/plain\r\n\r\nno\r\n--b0--",
            "not DICOM",
        ),
    ],
)
def test_an_answer_to_a_retrieval_that_is_none_is_told_as_what_it_is_and_leaves_nothing(
    server: tuple[str, Answer],
    tmp_path: Path,
    status: int,
    media: str,
    body: bytes,
    message: str,
) -> None:
    url, answer = server
    answer.status, answer.media, answer.body = status, media, body
    with pytest.raises(StudyError, match=f"^series 1.1: .*{message}"):
        fetching(source(url, tmp_path))
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_search_of_which_nothing_comes_is_an_empty_one(
    server: tuple[str, Answer], tmp_path: Path
) -> None:
    url, answer = server
    for status in (204, 200):
        answer.search = (status, "", b"")
        assert source(url, tmp_path).find().studies == []


def test_a_login_page_is_told_as_a_web_page_and_is_no_try_of_the_study(
    server: tuple[str, Answer], tmp_path: Path
) -> None:
    url, answer = server
    answer.search = (200, "text/html; charset=utf-8", b"<html>Who are you?</html>")
    _, answer.media, answer.body = answer.search
    made = source(url, tmp_path)
    files = list(save(mr_series("1.1", count=1), tmp_path / "results").iterdir())
    for ask in (made.find, lambda: fetching(made), lambda: made.store(files)):
        with pytest.raises(SourceUnavailableError, match=r"web page.*login"):
            ask()


def test_a_search_that_is_no_json_is_told(server: tuple[str, Answer], tmp_path: Path) -> None:
    url, answer = server
    answer.search = (200, "application/dicom+json", b'[{"0020')
    with pytest.raises(SourceUnavailableError, match="not JSON"):
        source(url, tmp_path).find()


@pytest.mark.slow
def test_a_server_that_accepts_and_never_answers_is_away_and_no_try_of_the_study(
    server: tuple[str, Answer], tmp_path: Path
) -> None:
    url, answer = server
    answer.hang = "all"
    made = source(url, tmp_path, timeout=(1.0, 0.3))
    files = list(save(mr_series("1.1", count=1), tmp_path / "results").iterdir())
    for ask in (made.find, lambda: fetching(made), lambda: made.store(files)):
        with pytest.raises(SourceUnavailableError, match="no answer in time"):
            ask()


@pytest.mark.parametrize("hang", ["others", "middle"])
def test_a_server_that_answers_others_but_not_about_a_study_refuses_the_study(
    server: tuple[str, Answer], tmp_path: Path, hang: str
) -> None:
    url, answer = server
    answer.media, answer.body = MULTIPART, multipart(mr_series("1.1"))[:5000]
    answer.hang = hang
    with pytest.raises(StudyError, match=r"series 1\.1: no (answer in time|connection)"):
        fetching(source(url, tmp_path, timeout=(1.0, 0.3)))


@pytest.mark.parametrize(
    ("status", "away", "meaning"),
    [
        (500, False, "an error inside the server"),
        (503, True, "busy or being serviced"),
        (401, True, "wants other credentials"),
        (404, False, "nothing is there"),
    ],
)
def test_a_server_that_refuses_or_is_away_is_told_from_one_that_lacks_the_study(
    server: tuple[str, Answer], tmp_path: Path, status: int, away: bool, meaning: str
) -> None:
    url, answer = server
    answer.status = status
    made = source(url, tmp_path)
    message = f"status {status}: .*{meaning}"
    with pytest.raises(SourceUnavailableError, match=message):
        made.find()
    error = SourceUnavailableError if away else StudyError
    with pytest.raises(error, match=message):
        fetching(made)
    files = list(save(mr_series("1.1", count=1), tmp_path / "results").iterdir())
    with pytest.raises(error, match=message):
        made.store(files)


def test_no_server_at_all_no_address_and_no_attribute(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="no connection"):
        source("http://127.0.0.1:9/dicom-web", tmp_path).find()
    with pytest.raises(ServingError, match="address"):
        source("http://", tmp_path)
    with pytest.raises(ServingError, match="no attribute 'StudyDay'"):
        source("http://127.0.0.1:9/dicom-web", tmp_path, filters={"StudyDay": "20260101"})


@needs_orthanc
class TestOrthanc:
    """Against a real server."""

    def send(self, url: str, folder: Path, datasets: list[Dataset]) -> None:
        source(url, folder).store(sorted(save(datasets, folder / "sent").iterdir()))

    def test_a_series_comes_and_goes_as_it_is(self, orthanc: str, tmp_path: Path) -> None:
        series = compressed(mr_series("1.2.11"), JPEGLSLossless)
        self.send(orthanc, tmp_path, series)
        self.send(orthanc, tmp_path / "again", series)
        made = source(orthanc, tmp_path, filters={"SeriesInstanceUID": "1.2.11"})
        study = made.find().studies[0]
        assert study == FoundStudy("1.2.11", "4", STUDY)
        fetched = made.fetch(study)
        assert fetched.image == str(tmp_path / "spool/1.2.11")
        assert sorted(path.name for path in fetched.files) == sorted(
            f"{dataset.SOPInstanceUID}.dcm" for dataset in series
        )
        by_uid = {str(dataset.SOPInstanceUID): dataset for dataset in series}
        for path in fetched.files:
            dataset = dcmread(path)
            assert dataset == by_uid[dataset.SOPInstanceUID]
            assert dataset.file_meta.TransferSyntaxUID == JPEGLSLossless
        made.release(study)
        assert list((tmp_path / "spool").iterdir()) == []

    def test_late_instances_make_another_version(self, orthanc: str, tmp_path: Path) -> None:
        series = mr_series("1.2.12")
        made = source(orthanc, tmp_path, filters={"SeriesInstanceUID": "1.2.12"})
        versions = []
        for part in (series[:3], series[3:]):
            self.send(orthanc, tmp_path / str(len(part)), part)
            versions += [study.version for study in made.find().studies]
        assert versions == ["3", "4"]

    def test_other_modalities_are_not_found_unless_asked_for(
        self, orthanc: str, tmp_path: Path
    ) -> None:
        self.send(orthanc, tmp_path, [*ct_slices(random_volume(), SeriesInstanceUID="1.2.13")])
        assert "1.2.13" not in {s.key for s in source(orthanc, tmp_path).find().studies}
        ct = source(orthanc, tmp_path, filters={"Modality": "CT"})
        assert "1.2.13" in {s.key for s in ct.find().studies}

    def test_a_localiser_is_passed_over(self, orthanc: str, tmp_path: Path) -> None:
        kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        self.send(orthanc, tmp_path, mr_series("1.2.14", ImageType=kind))
        with pytest.raises(PassedOverError, match="a localiser"):
            source(orthanc, tmp_path).fetch(FoundStudy("1.2.14", "4", STUDY))

    def test_a_series_that_is_gone_is_an_error_of_the_study(
        self, orthanc: str, tmp_path: Path
    ) -> None:
        with pytest.raises(StudyError, match=r"series 1.2.99: HTTP status 404"):
            source(orthanc, tmp_path).fetch(FoundStudy("1.2.99", "4", STUDY))

    @pytest.mark.slow
    def test_objects_that_orthanc_drops_silently_are_an_error(
        self, orthanc: str, tmp_path: Path
    ) -> None:
        folder = save([dicom_object(StudyInstanceUID="")], tmp_path / "results")
        with pytest.raises(StudyError, match=r"\b1 of 1 results"):
            source(orthanc, tmp_path).store(list(folder.iterdir()))
