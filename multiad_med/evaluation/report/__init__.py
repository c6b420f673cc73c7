"""An evaluation as files: metrics for programs, tables for spreadsheets, a page for people."""

from multiad_med.evaluation.report.write import write_report

__all__ = [
    "write_report",
]
