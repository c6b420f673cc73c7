"""What became of each study, kept in one SQLite file that several workers share."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from multiad_med.serving.service_errors import ServingError
from multiad_med.utils.errors import InputError

__all__ = ["Claim", "FoundStudy", "PassedOver", "StudyLedger", "StudyRecord", "StudyState"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    key TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    place TEXT NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    token TEXT NOT NULL DEFAULT '',
    until REAL NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS claimable ON studies (state, until);
CREATE TABLE IF NOT EXISTS made_by (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class StudyState(StrEnum):
    """Where a study stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    PASSED_OVER = "passed_over"
    """No volume, such as a localiser: there is nothing to do."""
    FAILED = "failed"
    """Given up: no try can succeed, or all allowed tries have failed. The reason is kept."""


class PassedOver(StrEnum):
    """Why something is passed over."""

    NOT_AN_IMAGE = "not an image"
    MASK = "a mask by its name"
    RESULT = "a result of inference"
    MODALITY = "of another modality"
    NOT_A_VOLUME = "no volume"
    FORMAT = "a volume that is neither DICOM nor NIfTI"
    DUPLICATE = "a copy of an object that was found already"
    OUTSIDE = "a link out of the folder"
    UNREADABLE = "empty, or a link that leads nowhere"


@dataclass(frozen=True)
class FoundStudy:
    """A study that a source has.

    Attributes:
        key: names it for good, such as the SeriesInstanceUID.
        version: changes when its content does; a finished study of another version is done again.
        place: what the source needs to fetch it.
    """

    key: str
    version: str
    place: str


@dataclass(frozen=True)
class Claim:
    """A study that one worker has taken.

    Attributes:
        study: the study.
        tries: how often it was taken, this time included.
        token: of this claim; a worker with another one may not write the outcome.
    """

    study: FoundStudy
    tries: int
    token: str


@dataclass(frozen=True)
class StudyRecord:
    """What the ledger knows of a study.

    Attributes:
        key, place: see :class:`FoundStudy`.
        state: where it stands.
        tries: how often it was taken.
        reason: why it failed, or was passed over.
    """

    key: str
    place: str
    state: StudyState
    tries: int
    reason: str


class StudyLedger:
    """Keep the studies' states; each change is one transaction, so that a kill leaves none half done.

    A claimed study is leased: unless :meth:`renew` is called in time, which a killed worker does
    not do, it may be claimed again. The outcome of a claim that was lost in this way is refused.

    The file is in SQLite's WAL mode and must lie on a disk of this host, not on a network share.

    Args:
        path: the file; made if absent.
        tries: how often a study is taken before it is given up.
        lease: seconds that a claim lasts without :meth:`renew`.
        clock: seconds since the epoch.

    Raises:
        ServingError: when the file is not a ledger, or cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tries: int = 3,
        lease: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if tries < 1 or lease <= 0:
            raise InputError(f"tries must be at least 1 and lease positive, got {tries}, {lease}.")
        self.path = Path(path)
        self.tries = tries
        self.lease = lease
        self.clock = clock
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ServingError(
                f"{self.path} cannot be used as a ledger: {error}. Move it away to begin a new one; "
                "studies are then done anew, without appearing twice in the PACS."
            ) from error

    def _connect(self) -> sqlite3.Connection:
        """Open a connection for each change, since threads may not share one."""
        return sqlite3.connect(self.path, timeout=30, isolation_level=None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:  # raised again
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def check_made_by(self, about: Mapping[str, str]) -> None:
        """Record what makes the results, or compare with what is recorded.

        Args:
            about: such as the model's hash.

        Raises:
            ServingError: when the ledger is of another model or other settings.
        """
        with self._transaction() as connection:
            known = dict(connection.execute("SELECT name, value FROM made_by"))
            if not known:
                connection.executemany("INSERT INTO made_by VALUES (?, ?)", about.items())
        if known and known != dict(about):
            differ = sorted(k for k in known.keys() | about.keys() if known.get(k) != about.get(k))
            raise ServingError(
                f"{self.path} is of another {' and '.join(differ)}, so that studies which it knows as "
                "finished are not finished now. Choose another output folder, or use the same again."
            )

    def offer(self, studies: Iterable[FoundStudy]) -> list[FoundStudy]:
        """Enter studies that are new, or have changed since they ended; return those entered."""
        entered = []
        with self._transaction() as connection:
            for study in studies:
                row = connection.execute(
                    "SELECT version, state FROM studies WHERE key = ?", (study.key,)
                ).fetchone()
                if row is None or (row[0] != study.version and row[1] != StudyState.RUNNING):
                    connection.execute(
                        "INSERT OR REPLACE INTO studies (key, version, place, state)"
                        " VALUES (?, ?, ?, ?)",
                        (study.key, study.version, study.place, StudyState.WAITING),
                    )
                    entered.append(study)
        return entered

    def pass_over(self, found: Iterable[tuple[FoundStudy, PassedOver]]) -> list[FoundStudy]:
        """Enter what is passed over, unless it is known; return what was entered.

        A study of the same name stays as it is, so that :meth:`retry` can try what was passed over.
        """
        entered = []
        with self._transaction() as connection:
            for study, what in found:
                row = connection.execute(
                    "SELECT state, reason FROM studies WHERE key = ?", (study.key,)
                ).fetchone()
                if row is None or (row[0] == StudyState.PASSED_OVER and row[1] != what):
                    connection.execute(
                        "INSERT OR REPLACE INTO studies (key, version, place, state, reason)"
                        " VALUES (?, '', ?, ?, ?)",
                        (study.key, study.place, StudyState.PASSED_OVER, what),
                    )
                    entered.append(study)
        return entered

    def retry(self, keys: Iterable[str]) -> None:
        """Let studies that are over wait again, as if they had not been tried."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE studies SET state = ?, tries = 0, until = 0, reason = ''"
                " WHERE key = ? AND state != ?",
                [(StudyState.WAITING, key, StudyState.RUNNING) for key in keys],
            )

    def claim(self) -> Claim | None:
        """Take the study that has waited longest, if there is one whose time has come.

        A study whose worker died counts as tried. One at which as many workers died as there are tries
        is given out once more, to be failed.
        """
        now = self.clock()
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT key, version, place, tries FROM studies"
                " WHERE state IN (?, ?) AND until <= ? ORDER BY rowid LIMIT 1",
                (StudyState.WAITING, StudyState.RUNNING, now),
            ).fetchone()
            if row is None:
                return None
            claim = Claim(FoundStudy(*row[:3]), row[3] + 1, uuid.uuid4().hex)
            connection.execute(
                "UPDATE studies SET state = ?, tries = ?, token = ?, until = ? WHERE key = ?",
                (StudyState.RUNNING, claim.tries, claim.token, now + self.lease, claim.study.key),
            )
            return claim

    def _update(self, claim: Claim, assignments: str, *values: object) -> bool:
        """Change a claimed study; return whether the claim was still held."""
        with self._transaction() as connection:
            changed = connection.execute(
                f"UPDATE studies SET {assignments} WHERE key = ? AND token = ? AND state = ?",
                (*values, claim.study.key, claim.token, StudyState.RUNNING),
            ).rowcount
        return changed == 1

    def renew(self, claim: Claim) -> bool:
        """Prolong a claim's lease; return whether it was still held."""
        return self._update(claim, "until = ?", self.clock() + self.lease)

    def finish(
        self, claim: Claim, state: StudyState = StudyState.DONE, *, reason: str = ""
    ) -> bool:
        """Record that a study is over; return whether the claim was still held."""
        return self._update(claim, "state = ?, reason = ?", state, reason)

    def fail(
        self, claim: Claim, reason: str, *, delay: float = 0.0, for_good: bool = False
    ) -> StudyState | None:
        """Record a failure: the study waits for ``delay`` seconds, or is given up at its last try.

        Args:
            claim: of the study.
            reason: why.
            delay: seconds.
            for_good: whether no other try can succeed.

        Returns:
            ``WAITING`` or ``FAILED``; None when the claim was no longer held.
        """
        over = for_good or claim.tries >= self.tries
        state = StudyState.FAILED if over else StudyState.WAITING
        held = self._update(
            claim, "state = ?, reason = ?, until = ?", state, reason, self.clock() + delay
        )
        return state if held else None

    def give_back(self, claim: Claim, *, delay: float = 0.0) -> bool:
        """Let a study wait as if it had not been taken; return whether the claim was still held."""
        return self._update(
            claim,
            "state = ?, tries = tries - 1, until = ?",
            StudyState.WAITING,
            self.clock() + delay,
        )

    def counts(self) -> dict[str, int]:
        """Count the studies in each state."""
        with closing(self._connect()) as connection:
            found = dict(connection.execute("SELECT state, COUNT(*) FROM studies GROUP BY state"))
        return {str(state): found.get(str(state), 0) for state in StudyState}

    def passed_over(self) -> dict[str, int]:
        """Count what was passed over, by reason."""
        with closing(self._connect()) as connection:
            found = connection.execute(
                "SELECT reason, COUNT(*) FROM studies WHERE state = ? GROUP BY reason",
                (StudyState.PASSED_OVER,),
            ).fetchall()
        counts = {
            str(what): sum(n for reason, n in found if reason.startswith(what))
            for what in PassedOver
        }
        return {what: count for what, count in counts.items() if count}

    def records(self) -> list[StudyRecord]:
        """Return all studies, in the order in which they came."""
        with closing(self._connect()) as connection:
            rows = connection.execute(
                "SELECT key, place, state, tries, reason FROM studies ORDER BY rowid"
            )
            return [StudyRecord(row[0], row[1], StudyState(row[2]), *row[3:]) for row in rows]
