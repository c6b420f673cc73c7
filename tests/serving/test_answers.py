"""What a DICOMweb server answers over HTTP: whole, cut, none, or something else."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from multiad_med.data import StudyError
from multiad_med.serving import DicomwebSource, FoundStudy, ServingError, SourceUnavailableError
from tests.dicom_files import save
from tests.serving.dicomweb import STUDY, mr_series, source

pytest.importorskip("dicomweb_client", reason="needs the extra pacs")


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
    with pytest.raises(ServingError, match="'StudyDay' is none"):
        source("http://127.0.0.1:9/dicom-web", tmp_path, filters={"StudyDay": "20260101"})
