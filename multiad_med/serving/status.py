"""``multiad serve status`` and ``multiad serve retry``: what became of the studies, and another try."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from multiad_med.serving.json_log import study_hash
from multiad_med.serving.ledger import StudyLedger, StudyRecord, StudyState
from multiad_med.serving.service_errors import ServingError

__all__ = ["LEDGER", "ledger_status", "open_ledger", "retry"]

LEDGER = "ledger.sqlite"
"""Name of the ledger in a folder of results."""

_HEADER = ("STATE", "IN THE LOG", "TRIES", "STUDY", "REASON")
_ORDER = [  # what may be long and needs no action comes first
    *(StudyState.DONE, StudyState.PASSED_OVER, StudyState.WAITING),
    *(StudyState.RUNNING, StudyState.FAILED),
]


def open_ledger(output: str | Path) -> StudyLedger:
    """Return the ledger of a folder of results.

    Raises:
        ServingError: when the folder has none.
    """
    path = Path(output).expanduser() / LEDGER
    if not path.is_file():
        raise ServingError(
            f"{output} has no {LEDGER}. Give the folder that `multiad serve` has as its output."
        )
    return StudyLedger(path)


def ledger_status(output: str | Path) -> str:
    """Return a table of all studies, a line each, and their counts; those that failed come last.

    It names studies and files, unlike the log, whose name of each study is in the second column.

    Args:
        output: of ``multiad serve``.

    Raises:
        ServingError: when there is no ledger.
    """
    ledger = open_ledger(output)
    records = sorted(ledger.records(), key=lambda record: _ORDER.index(record.state))
    rows = [
        (_words(r.state), study_hash(r.key), str(r.tries), _name(r), " ".join(r.reason.split()))
        for r in records
    ]
    lines = _table([_HEADER, *rows]) if rows else []
    counts = ledger.counts()
    lines.append(", ".join(f"{count} {_words(state)}" for state, count in counts.items()) + ".")
    if passed_over := ledger.passed_over():
        told = ", ".join(f"{count} ({what})" for what, count in passed_over.items())
        lines.append(f"Passed over: {told}.")
    if counts[StudyState.FAILED]:
        lines.append(f"Try the failed again: multiad serve retry {shlex.quote(str(output))}")
    return "\n".join(lines)


def _name(record: StudyRecord) -> str:
    """Return a study's key; for a series in a folder, also its place."""
    place = json.loads(record.place or "{}").get("image", record.key)
    first = place if isinstance(place, str) else f"{place[0]} ({len(place)} files)"
    return record.key if first == record.key else f"{record.key} in {first}"


def _words(state: str) -> str:
    return state.replace("_", " ")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def retry(output: str | Path, studies: Sequence[str] = ()) -> int:
    """Let studies be done again by the worker that runs, or the next one.

    Args:
        output: of ``multiad serve``.
        studies: as the table or the log names them, whatever became of them; none means all that failed.

    Returns:
        The number of studies.

    Raises:
        ServingError: when there is no ledger, or a study is not in it or is at work; then none is tried.
    """
    ledger = open_ledger(output)
    records = ledger.records()
    if studies:
        chosen = [_chosen(name, records, output) for name in studies]
    else:
        chosen = [record for record in records if record.state is StudyState.FAILED]
    ledger.retry({record.key for record in chosen})
    return len({record.key for record in chosen})


def _chosen(name: str, records: Sequence[StudyRecord], output: str | Path) -> StudyRecord:
    for record in records:
        if name in (record.key, study_hash(record.key)):
            if record.state is StudyState.RUNNING:
                raise ServingError(f"{name} is at work now; wait until it is over.")
            return record
    near = difflib.get_close_matches(name, [record.key for record in records], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ServingError(
        f"There is no study {name}.{hint} `multiad serve status {shlex.quote(str(output))}` lists all."
    )
