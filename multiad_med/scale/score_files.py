"""Scores of all studies of a run as Parquet: one row a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiad_med.utils.atomic import atomic_path

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FOLDER", "ScoreFiles", "score_table"]

FOLDER = "scores"
_ROWS = 10_000  # of a file

_COLUMNS = {
    "index": "int64",
    "id": "string",
    "image": "string",
    "status": "string",
    "message": "string",
    "score": "float64",
    "p_value": "float64",
    "decision": "string",
    "map": "string",
    "image_sha256": "string",
    "organ_sha256": "string",
    "model_sha256": "string",
    "seconds": "float64",
    "read_seconds": "float64",
    "network_seconds": "float64",
    "write_seconds": "float64",
}


def score_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table: those of ``summary.json``, with id, hashes, and seconds of each stage."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()])
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


class ScoreFiles:
    """Writes rows, as they come, to ``scores/part-00000.parquet`` and so on.

    Files of an earlier run are removed: the new run tells of its finished studies too.

    Args:
        output_dir: of the results.
    """

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir / FOLDER
        for earlier in self.folder.glob("part-*.parquet"):
            earlier.unlink()
        self._rows: list[Mapping[str, Any]] = []
        self._files = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row, and write a file when there are enough."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self.close()

    def close(self) -> None:
        """Write what is left."""
        import pyarrow.parquet as pq

        if self._rows:
            with atomic_path(self.folder / f"part-{self._files:05}.parquet") as temporary:
                pq.write_table(score_table(self._rows), temporary)
            self._rows, self._files = [], self._files + 1
