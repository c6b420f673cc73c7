"""``multiad serve status`` and ``retry``: by name what became of each study, and another try."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from multiad_med.serving import (
    FoundStudy,
    PassedOver,
    ServingError,
    StudyLedger,
    StudyState,
    ledger_status,
    retry,
)
from multiad_med.serving.json_log import study_hash


@pytest.fixture
def ledger(tmp_path: Path) -> StudyLedger:
    """One study of each state."""
    made = StudyLedger(tmp_path / "ledger.sqlite", tries=1)
    names = ("done.nii.gz", "bad.nii.gz", "worse.nii.gz", "running.nii.gz", "waiting.nii.gz")
    made.offer([FoundStudy(name, "1", "") for name in names])
    made.finish(made.claim())
    made.fail(made.claim(), "bad.nii.gz: not readable:\n ends early")
    made.fail(made.claim(), "worse.nii.gz: 1 slice is missing")
    made.claim()
    made.pass_over(
        [
            (FoundStudy("x_seg.nii.gz", "", ""), PassedOver.MASK),
            (FoundStudy("readme.txt", "", ""), PassedOver.NOT_AN_IMAGE),
            (FoundStudy("notes.txt", "", ""), PassedOver.NOT_AN_IMAGE),
        ]
    )
    return made


def test_the_table_names_each_study_its_state_and_the_reason_and_ends_in_counts(
    ledger: StudyLedger, tmp_path: Path
) -> None:
    lines = ledger_status(tmp_path).splitlines()
    assert lines[0].split() == ["STATE", "IN", "THE", "LOG", "TRIES", "STUDY", "REASON"]
    columns = [" ".join(line.split()) for line in lines[1:9]]
    assert columns == [
        f"done {study_hash('done.nii.gz')} 1 done.nii.gz",
        f"passed over {study_hash('x_seg.nii.gz')} 0 x_seg.nii.gz a mask by its name",
        f"passed over {study_hash('readme.txt')} 0 readme.txt not an image",
        f"passed over {study_hash('notes.txt')} 0 notes.txt not an image",
        f"waiting {study_hash('waiting.nii.gz')} 0 waiting.nii.gz",
        f"running {study_hash('running.nii.gz')} 1 running.nii.gz",
        f"failed {study_hash('bad.nii.gz')} 1 bad.nii.gz bad.nii.gz: not readable: ends early",
        f"failed {study_hash('worse.nii.gz')} 1 worse.nii.gz worse.nii.gz: 1 slice is missing",
    ]
    below = [
        r"1 waiting, 1 running, 1 done, 3 passed over, 2 failed",
        r"2 \(not an image\), 1 \(a mask by its name\)",
        rf"multiad serve retry {re.escape(str(tmp_path))}$",
    ]
    assert len(lines) == 9 + len(below)
    for line, fact in zip(lines[9:], below, strict=True):
        assert re.search(fact, line)


def test_a_series_of_a_folder_is_told_with_where_it_lies(tmp_path: Path) -> None:
    places = ['{"image": "doe/t1"}', '{"image": ["doe/1.dcm", "doe/2.dcm"]}', '{"study": "1.2"}']
    studies = [FoundStudy(f"1.2.{n}", "1", place) for n, place in enumerate(places)]
    StudyLedger(tmp_path / "ledger.sqlite").offer(studies)
    table = ledger_status(tmp_path)
    assert "  1.2.0 in doe/t1\n" in table
    assert "  1.2.1 in doe/1.dcm (2 files)\n" in table
    assert "  1.2.2\n" in table


def test_a_ledger_without_studies_has_counts_alone(tmp_path: Path) -> None:
    StudyLedger(tmp_path / "ledger.sqlite")
    (line,) = ledger_status(tmp_path).splitlines()
    assert "0 waiting, 0 running, 0 done, 0 passed over, 0 failed" in line


def test_retry_without_names_is_of_all_that_failed(ledger: StudyLedger, tmp_path: Path) -> None:
    assert retry(tmp_path) == 2
    assert retry(tmp_path) == 0
    counts = ledger.counts()
    assert (counts["waiting"], counts["failed"], counts["done"]) == (3, 0, 1)
    claim = ledger.claim()
    assert (claim.study.key, claim.tries) == ("bad.nii.gz", 1)


@pytest.mark.parametrize("name", ["x_seg.nii.gz", "done.nii.gz", study_hash("bad.nii.gz")])
def test_retry_takes_a_study_by_its_name_or_as_the_log_calls_it(
    ledger: StudyLedger, tmp_path: Path, name: str
) -> None:
    assert retry(tmp_path, [name, name]) == 1
    again = [r.key for r in ledger.records() if r.state is StudyState.WAITING]
    assert len(again) == 2
    assert any(name in (key, study_hash(key)) for key in again)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad.nii", r"bad\.nii\..*mean bad\.nii\.gz\?"),
        ("running.nii.gz", "is at work now"),
    ],
)
def test_retry_of_what_cannot_be_retried_is_refused_and_nothing_is_changed(
    ledger: StudyLedger, tmp_path: Path, name: str, message: str
) -> None:
    before = ledger.records()
    with pytest.raises(ServingError, match=message):
        retry(tmp_path, ["worse.nii.gz", name])
    assert ledger.records() == before


@pytest.mark.parametrize("ask", [ledger_status, retry])
def test_a_folder_without_ledger_is_named_and_none_is_made(tmp_path: Path, ask: object) -> None:
    with pytest.raises(ServingError, match=r"no ledger\.sqlite\b.*folder"):
        ask(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_was_passed_over_and_is_tried_all_the_same_is_not_passed_over_again(
    ledger: StudyLedger, tmp_path: Path
) -> None:
    mask = (FoundStudy("x_seg.nii.gz", "", ""), PassedOver.MASK)
    assert ledger.pass_over([mask]) == []
    retry(tmp_path, ["x_seg.nii.gz"])
    assert ledger.pass_over([mask]) == []
    assert ledger.counts()["waiting"] == 2
    assert ledger.pass_over([(FoundStudy("notes.txt", "", ""), PassedOver.UNREADABLE)])
    assert ledger.passed_over() == {"not an image": 1, "empty, or a link that leads nowhere": 1}


def test_what_becomes_a_study_is_done(ledger: StudyLedger) -> None:
    study = FoundStudy("notes.txt", "2", "")
    assert ledger.offer([study]) == [study]
