"""One worker: finds studies, takes them one by one, and records what became of each."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multiad_med.serving.failures import Next, failure_of
from multiad_med.serving.json_log import log_event, study_hash, trace
from multiad_med.serving.ledger import Claim, StudyLedger, StudyState
from multiad_med.serving.limit import OverTimeError, time_limit
from multiad_med.serving.service_errors import (
    DeadlyStudyError,
    ServingError,
    SourceUnavailableError,
)
from multiad_med.serving.study_source import FetchedStudy, PassedOverError, StudySource
from multiad_med.utils.errors import InputError

__all__ = ["Worker"]

_IDLE = 0.2  # seconds between looks at the ledger
_SETBACKS = 10  # in a row, after which the worker gives up


class _GiveBackError(BaseException):
    """Raised inside a study's processing, to leave it at once."""


class _ClaimLostError(RuntimeError):
    """The lease ran out, as while the machine slept, and someone else has the study."""


class Worker:
    """Take studies until told to stop; a bad one is recorded and stops nothing.

    Several workers, in processes of their own, may share a ledger and a source.

    Args:
        ledger: of the studies.
        source: of the studies.
        process: makes a study's results and returns the DICOM objects to store.
        interval: seconds between looks at the source.
        retry_delay: seconds until a study that failed, or whose source did not answer, is tried again.
        limit: seconds that a study may take; then its try has failed. Where it cannot be stopped, the
            process ends with status 1.
    """

    def __init__(
        self,
        *,
        ledger: StudyLedger,
        source: StudySource,
        process: Callable[[FetchedStudy], Sequence[Path]],
        interval: float = 10.0,
        retry_delay: float = 30.0,
        limit: float = 3600.0,
    ) -> None:
        if limit <= 0:
            raise InputError(f"limit must be positive, got {limit} seconds.")
        self.ledger = ledger
        self.source = source
        self.process = process
        self.interval = interval
        self.retry_delay = retry_delay
        self.limit = limit
        self._stopping = False
        self._begun: float | None = None  # the study at hand, by the monotonic clock
        self._source_answers = False
        self._away = ""  # why it does not
        self._unsettled = 0
        self._nameless = 0
        self._setbacks = 0  # since something went well
        self._setback = ""  # the last one
        self._passed_over: set[tuple[str, str]] = set()  # which the ledger has

    def stop(self) -> None:
        """Stop after the study at hand; called again, give it back at once. For signal handlers.

        It sets no lock and must be called from the thread that runs the worker, as Python calls
        signal handlers.
        """
        if self._stopping and self._begun is not None:
            raise _GiveBackError
        self._stopping = True

    def health(self) -> tuple[bool, Mapping[str, Any]]:
        """Return the counts of studies and the current one's seconds; raise on an unreadable ledger."""
        begun = self._begun
        seconds = None if begun is None else round(time.monotonic() - begun, 1)
        return True, {"studies": self.ledger.counts(), "seconds_at_study": seconds}

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return whether the source answered when last asked, and why it did not."""
        return self._source_answers and not self._stopping, {
            "source": self._source_answers,
            "stopping": self._stopping,
            **({} if self._source_answers or not self._away else {"reason": self._away}),
        }

    def run(self, *, once: bool = False) -> None:
        """Work until :meth:`stop`.

        Args:
            once: end when the source has nothing new and every study is over.

        Raises:
            ServingError: with ``once``, when the source does not answer; when it, the disk or the ledger
                stays away while studies are at work; when there are series that cannot be named.
        """
        look = 0.0
        while not self._stopping:
            try:
                if time.monotonic() >= look:
                    self._look()
                    look = time.monotonic() + self.interval
                    if once and not self._source_answers:
                        raise ServingError(self._away)
                if once and self._setbacks >= _SETBACKS:
                    raise ServingError(f"{self._setbacks} times in a row: {self._setback}")
                claim = self.ledger.claim()
                if claim is not None:
                    self._work(claim)
                elif once and not self._unsettled and not self._open_studies():
                    break
                else:
                    time.sleep(_IDLE)
            except sqlite3.OperationalError as error:  # a full disk, a lock held for long
                self._set_back(self._tell_ledger(error))
                time.sleep(_IDLE)
        log_event("stopped", studies=self.ledger.counts(), passed_over=self.ledger.passed_over())
        if once and self._nameless:
            raise ServingError(
                f"{self._nameless} series have no SeriesInstanceUID in the server's answer and were left "
                "out; the others are done."
            )

    def _tell_ledger(self, error: sqlite3.Error) -> str:
        """Log that the ledger cannot be used; return why."""
        told = failure_of(error).told
        log_event("ledger_unavailable", level=logging.ERROR, reason=told)
        return told

    def _set_back(self, reason: str) -> None:
        self._setbacks += 1
        self._setback = reason

    def _open_studies(self) -> int:
        counts = self.ledger.counts()
        return counts[StudyState.WAITING] + counts[StudyState.RUNNING]

    def _look(self) -> None:
        """Enter what the source has into the ledger."""
        try:
            found = self.source.find()
        except SourceUnavailableError as error:
            self._source_answers, self._away = False, str(error)
            log_event("source_unavailable", level=logging.WARNING, reason=self._away)
            return
        self._source_answers, self._unsettled = True, found.unsettled
        if found.nameless != self._nameless:
            log_event(
                "nameless",
                level=logging.ERROR,
                count=found.nameless,
                reason="The server gives no SeriesInstanceUID for them, so that they are left out.",
            )
        self._nameless = found.nameless
        for study in self.ledger.offer(found.studies):
            log_event("found", study=study_hash(study.key))
        others = {(study.key, str(what)): (study, what) for study, what in found.passed_over}
        new = [others[key] for key in others if key not in self._passed_over]
        entered = {study.key for study in self.ledger.pass_over(new)} if new else ()
        for study, what in new:
            if study.key in entered:
                log_event("passed_over", study=study_hash(study.key), reason=what)
        self._passed_over = set(others)

    def _work(self, claim: Claim) -> None:
        """Do one study and record its outcome."""
        start = time.monotonic()
        log_event("begun", study=study_hash(claim.study.key), tries=claim.tries)
        held, level, before = True, logging.INFO, self._setbacks
        about: dict[str, Any] = {}
        try:
            stored = self._do(claim)
            state, about = StudyState.DONE, {"stored": stored}
            held = self.ledger.finish(claim)
        except PassedOverError as error:
            state, about = StudyState.PASSED_OVER, {"reason": error.what}
            held = self.ledger.finish(claim, state, reason=str(error))
        except _GiveBackError:
            state = StudyState.WAITING
            held = self.ledger.give_back(claim)
        except _ClaimLostError:
            state, held = StudyState.WAITING, False
        except OverTimeError:
            level, about = logging.ERROR, {"reason": self._over_time_reason}
            state, held = self._over_time(claim)
        except Exception as error:  # the barrier between studies
            failure = failure_of(error)
            level, about = logging.ERROR, {"reason": failure.told}
            if failure.is_fault:
                about["trace"] = trace(error)
            if failure.then is Next.WAIT:
                state = StudyState.WAITING
                self._set_back(failure.told)
                held = self.ledger.give_back(claim, delay=self.retry_delay)
            else:
                failed = self.ledger.fail(
                    claim,
                    failure.reason,
                    delay=self.retry_delay,
                    for_good=failure.then is Next.GIVE_UP,
                )
                state, held = failed or StudyState.WAITING, failed is not None
        if self._setbacks == before:
            self._setbacks = 0
        if held:
            self.source.release(claim.study)
        log_event(
            "over" if held else "lost",
            level=level,
            study=study_hash(claim.study.key),
            state=str(state),
            tries=claim.tries,
            seconds=round(time.monotonic() - start, 3),
            **about,
        )

    def _do(self, claim: Claim) -> int:
        """Fetch, process and store a study; return the number of objects stored."""
        if claim.tries > self.ledger.tries:
            raise DeadlyStudyError(
                f"The worker died, {self.ledger.tries} times, while it was at this study."
            )
        with self._lease_kept(claim), time_limit(self.limit, hung=lambda: self._hung(claim)):
            self._begun = time.monotonic()
            try:
                study = self.source.fetch(claim.study)
                files = self.process(study)
                if not self.ledger.renew(claim):
                    raise _ClaimLostError
                self.source.store(files)
                return len(files)
            finally:
                self._begun = None

    @property
    def _over_time_reason(self) -> str:
        return f"It took longer than {self.limit:g} seconds."

    def _over_time(self, claim: Claim) -> tuple[StudyState, bool]:
        """Count a study that took too long as tried; return its state, and whether it was still ours."""
        state = self.ledger.fail(claim, self._over_time_reason, delay=self.retry_delay)
        return state or StudyState.WAITING, state is not None

    def _hung(self, claim: Claim) -> None:
        """End this process, whose main thread hangs at a study."""
        try:
            state, _ = self._over_time(claim)
            log_event(
                "hung",
                level=logging.CRITICAL,
                study=study_hash(claim.study.key),
                state=str(state),
                tries=claim.tries,
                reason=f"{self._over_time_reason} It cannot be stopped, so that the worker ends.",
            )
        finally:
            os._exit(1)

    @contextmanager
    def _lease_kept(self, claim: Claim) -> Iterator[None]:
        """Renew a claim's lease from a thread while the study is at work."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(self.ledger.lease / 3):
                try:
                    self.ledger.renew(claim)
                except sqlite3.Error as error:
                    self._tell_ledger(error)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
