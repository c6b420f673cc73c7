"""A worker that processes what arrives in a folder or a PACS, and brings the results back."""

from multiad_med.serving.dicomweb import DicomwebSource
from multiad_med.serving.folder import FolderSource
from multiad_med.serving.health import HealthServer
from multiad_med.serving.ledger import Claim, FoundStudy, PassedOver, StudyLedger, StudyState
from multiad_med.serving.service_errors import ServingError, SourceUnavailableError, TryAgainError
from multiad_med.serving.status import ledger_status, retry
from multiad_med.serving.study_source import (
    FetchedStudy,
    FoundStudies,
    PassedOverError,
    StudySource,
)
from multiad_med.serving.worker import Worker

__all__ = [
    "Claim",
    "DicomwebSource",
    "FetchedStudy",
    "FolderSource",
    "FoundStudies",
    "FoundStudy",
    "HealthServer",
    "PassedOver",
    "PassedOverError",
    "ServingError",
    "SourceUnavailableError",
    "StudyLedger",
    "StudySource",
    "StudyState",
    "TryAgainError",
    "Worker",
    "ledger_status",
    "retry",
]
