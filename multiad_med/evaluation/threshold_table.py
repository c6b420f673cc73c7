"""What each false-positive rate in reach would flag: rates, thresholds, shares above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from multiad_med.scoring import NormalScores

__all__ = ["HEAD", "RATES", "threshold_cells", "threshold_rows", "threshold_text"]

RATES = (0.1, 0.05, 0.02, 0.01, 0.005)
"""Rates that a table lists where they are in reach."""

HEAD = ("Rate", "Threshold", "Normal ones flagged", "Anomalous ones flagged")


def _share(flagged: Tensor) -> float | None:
    return float(flagged.double().mean()) if len(flagged) else None


def threshold_rows(
    normals: NormalScores, scores: Tensor, anomalous: Tensor
) -> list[dict[str, Any]]:
    """Return one row for each rate in reach: its threshold, and the share of labelled units flagged.

    Args:
        normals: of the model, at whatever rate.
        scores: of labelled units ``(N,)``.
        anomalous: which of them are ``(N,)``.

    Returns:
        Rows with ``rate``, ``threshold``, ``chosen`` (whether it is the model's own rate), and of
        ``normal`` and ``anomalous`` units their number and the share of them that is at or above the
        threshold, None without any.
    """
    rows = []
    for rate in sorted({*RATES, normals.rate}, reverse=True):
        at_rate = replace(normals, rate=rate)
        if at_rate.threshold is None:
            continue
        flagged, abnormal = at_rate.flagged(scores), anomalous.bool()
        rows.append(
            {
                "rate": rate,
                "threshold": at_rate.threshold,
                "chosen": rate == normals.rate,
                "normal": int((~abnormal).sum()),
                "normal_above": _share(flagged[~abnormal]),
                "anomalous": int(abnormal.sum()),
                "anomalous_above": _share(flagged[abnormal]),
            }
        )
    return rows


def threshold_cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row's cells as texts, in the columns of :data:`HEAD`."""

    def share(kind: str) -> str:
        value = row[f"{kind}_above"]
        return "-" if value is None else f"{100 * value:.1f} % of {row[kind]}"

    mark = " (chosen)" if row["chosen"] else ""
    return [
        f"{100 * row['rate']:.3g} %{mark}",
        f"{row['threshold']:.4f}",
        share("normal"),
        share("anomalous"),
    ]


def threshold_text(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table as lines of text, its heading first."""
    cells = [list(HEAD), *map(threshold_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
