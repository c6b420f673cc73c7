"""A failure in words: the log names nothing, and only what may pass is tried again."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import zlib
from pathlib import Path

import pytest
import requests

from multiad_med.data import StudyError, study_errors
from multiad_med.data.study_errors import FailureKind
from multiad_med.dicom.read import DicomSeriesError
from multiad_med.dicom.write.referenced_series import DicomResultError
from multiad_med.serving import SourceUnavailableError, TryAgainError
from multiad_med.serving.answers import reason_of
from multiad_med.serving.failures import Next, failure_of
from multiad_med.serving.service_errors import DeadlyStudyError
from multiad_med.utils.errors import FileError, reader_errors

NAME = "Doe^Jane"


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number), f"/in/{NAME}.nii.gz")


def wrapped(error: Exception) -> StudyError:
    """As a study's failure leaves a bundle's inference."""
    try:
        with study_errors({"image": f"/in/{NAME}.nii.gz"}):
            raise RuntimeError("applying transform") from error
    except StudyError as told:
        return told


def corrupt(error: Exception) -> Exception:
    """As a reader tells a damaged file."""
    try:
        with reader_errors(f"/in/{NAME}", DicomSeriesError, "damaged"):
            raise error
    except DicomSeriesError as told:
        return told


PERMANENT = [
    DicomSeriesError(f"{NAME}: 1 slice(s) are missing"),
    StudyError(f"{NAME} is no UID."),
    corrupt(EOFError("ends early")),
    corrupt(zlib.error("invalid block")),
    corrupt(OSError("Not a gzipped file (b'no')")),
    DicomResultError(f"{NAME}: StudyInstanceUID missing"),
    DeadlyStudyError("The worker died, 3 times, while it was at this study."),
]
TRANSIENT = [
    system(errno.EIO),
    system(errno.EACCES),
    system(errno.ESTALE),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError("timed out"),
    TryAgainError(f"{NAME}: the server sent 3 of 4 instances."),
    TypeError(f"cannot add {NAME} and 1"),
]
WAITING = [
    SourceUnavailableError("The watched folder is not there."),
    sqlite3.OperationalError("database is locked"),
    system(errno.ENOSPC),
    wrapped(system(errno.ENOSPC)),
]


@pytest.mark.parametrize(
    ("error", "then"),
    [
        *((error, Next.GIVE_UP) for error in PERMANENT),
        *((wrapped(error), Next.GIVE_UP) for error in PERMANENT[:-2]),
        *((error, Next.TRY_AGAIN) for error in TRANSIENT),
        *((wrapped(error), Next.TRY_AGAIN) for error in TRANSIENT[:-2]),
        *((wrapped(error), Next.TRY_AGAIN) for error in TRANSIENT[-1:]),
        *((error, Next.WAIT) for error in WAITING),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again_and_the_log_has_a_sentence_that_names_nothing(
    error: Exception, then: Next
) -> None:
    failure = failure_of(error)
    assert failure.then is then
    assert "Doe" not in failure.told
    assert "/in" not in failure.told
    assert re.fullmatch(r"[A-Z].*\.", failure.told)
    assert not re.search(r"Error\b|Exception", failure.told + failure.reason)


def test_a_failure_whose_cause_was_lost_on_its_way_keeps_what_is_to_blame() -> None:
    for kind, then in ((FailureKind.SYSTEM, Next.TRY_AGAIN), (FailureKind.STUDY, Next.GIVE_UP)):
        assert failure_of(wrapped(StudyError("x: away", kind=kind))).then is then
    fault = failure_of(wrapped(StudyError("x: a fault", kind=FailureKind.PROGRAM)))
    assert fault.is_fault
    assert fault.then is Next.TRY_AGAIN


def test_the_reason_for_the_ledger_is_that_of_the_error() -> None:
    error = wrapped(DicomSeriesError(f"{NAME}: 1 slice(s)\n  are missing"))
    failure = failure_of(error)
    assert failure.reason == f"/in/{NAME}.nii.gz: {NAME}: 1 slice(s) are missing"
    assert "`multiad serve status`" in failure.told
    assert failure.then is Next.GIVE_UP


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory. Set a smaller"),
        (RuntimeError("not enough memory: 8 GB"), "out of memory (not enough memory: 8 GB). Set"),
        (TypeError("cannot add"), "a fault of the program: cannot add"),
        (KeyError("size"), "a fault of the program: 'size'"),
    ],
)
def test_the_reason_for_the_ledger_has_no_class_of_a_program(error: Exception, reason: str) -> None:
    assert failure_of(error).reason.startswith(reason)
    assert reason in failure_of(wrapped(error)).reason


def test_a_file_that_the_system_refuses_is_told_by_the_systems_words() -> None:
    error = FileError("x cannot be read: Permission denied.")
    error.__cause__ = system(errno.EACCES)
    assert failure_of(error).told.startswith("The system refuses a file: Permission denied.")


@pytest.mark.parametrize(
    ("status", "words"),
    [(503, "busy or being serviced"), (502, "does not answer"), (401, "other credentials")],
)
def test_a_status_of_the_pacs_is_told_in_words(status: int, words: str) -> None:
    response = requests.Response()
    response.status_code = status
    assert words in reason_of(requests.HTTPError(response=response))


@pytest.mark.parametrize(
    "error", [requests.exceptions.InvalidURL(NAME), requests.exceptions.ContentDecodingError(NAME)]
)
def test_no_reason_of_a_request_is_a_class(error: requests.RequestException) -> None:
    assert not re.search("Error|Invalid|Doe", reason_of(error))


def test_dicom_results_of_a_series_without_uids_name_the_option_that_does_without(
    tmp_path: Path,
) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    from types import SimpleNamespace

    from multiad_med.dicom.write.results import DicomKind
    from multiad_med.serving import FetchedStudy
    from multiad_med.serving.process import StudyProcessor
    from tests.dicom_files import save
    from tests.serving.pacs import head_series

    slices = head_series("1")
    for dataset in slices:
        del dataset.StudyInstanceUID, dataset.FrameOfReferenceUID
    series = save(slices, tmp_path / "in")

    def predict(image: object, **_: object) -> SimpleNamespace:
        return SimpleNamespace(
            map_file=tmp_path / "map.nii.gz", folder=tmp_path / "dicom", scores={}
        )

    process = StudyProcessor(
        predict, source=tmp_path, output_dir=tmp_path, kinds=[DicomKind.REPORT]
    )
    study = FetchedStudy(str(series), tuple(sorted(series.iterdir())))
    with pytest.raises(DicomResultError, match=r"StudyInstanceUID.* missing.*--kind none") as told:
        process(study)
    assert str(tmp_path / "map.nii.gz") in str(told.value)
    assert failure_of(told.value).then is Next.GIVE_UP
