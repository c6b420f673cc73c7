"""A DICOM series read as a volume."""

from multiad_med.dicom.read.geometry import DicomSeriesError
from multiad_med.dicom.read.reader import DicomSeriesReader
from multiad_med.dicom.read.series import DicomSeries, SeriesFinder, SeriesSearch, find_series

__all__ = [
    "DicomSeries",
    "DicomSeriesError",
    "DicomSeriesReader",
    "SeriesFinder",
    "SeriesSearch",
    "find_series",
]
