"""What is read and written: volumes, pictures, maps, scores; each file whole or not at all."""

from multiad_med.io.archives import ArchiveError, unpack
from multiad_med.io.atomic import atomic_path, write_json, write_state
from multiad_med.io.bands import Band, BandThresholds, anomaly_bands
from multiad_med.io.dicom_geometry import DicomSeriesError
from multiad_med.io.dicom_reader import DicomSeriesReader
from multiad_med.io.dicom_series import DicomSeries, SeriesFinder, SeriesSearch, find_series
from multiad_med.io.hashes import file_sha256, state_sha256
from multiad_med.io.load import LoadVolume, LoadVolumed
from multiad_med.io.montage import MontageColumn, save_montage
from multiad_med.io.nifti import BScanMapWriter, SaveImageMapd, StudyMapWriter
from multiad_med.io.nifti_reader import NiftiError, NiftiReader
from multiad_med.io.oct import LoadBScans, LoadBScansd, OctError
from multiad_med.io.picture_maps import SavePictureMapd
from multiad_med.io.pictures import (
    LoadPictureMasks,
    LoadPictureMasksd,
    LoadPictures,
    LoadPicturesd,
    PictureError,
)
from multiad_med.io.results import StudyResults
from multiad_med.io.scores import (
    SaveScoresd,
    ScoreSlicesd,
    study_scores,
)

__all__ = [
    "ArchiveError",
    "BScanMapWriter",
    "Band",
    "BandThresholds",
    "DicomSeries",
    "DicomSeriesError",
    "DicomSeriesReader",
    "LoadBScans",
    "LoadBScansd",
    "LoadPictureMasks",
    "LoadPictureMasksd",
    "LoadPictures",
    "LoadPicturesd",
    "LoadVolume",
    "LoadVolumed",
    "MontageColumn",
    "NiftiError",
    "NiftiReader",
    "OctError",
    "PictureError",
    "SaveImageMapd",
    "SavePictureMapd",
    "SaveScoresd",
    "ScoreSlicesd",
    "SeriesFinder",
    "SeriesSearch",
    "StudyMapWriter",
    "StudyResults",
    "anomaly_bands",
    "atomic_path",
    "file_sha256",
    "find_series",
    "save_montage",
    "state_sha256",
    "study_scores",
    "unpack",
    "write_json",
    "write_state",
]
