"""What a worker needs of a source of studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from multiad_med.serving.ledger import FoundStudy, PassedOver
from multiad_med.utils.errors import MultiADError

__all__ = ["FetchedStudy", "FoundStudies", "PassedOverError", "StudySource"]


class PassedOverError(MultiADError, RuntimeError):
    """What was found is no volume to process.

    Args:
        what: what it is.
        detail: more about it, for the ledger.
    """

    def __init__(self, what: PassedOver, detail: str = "") -> None:
        super().__init__(f"{what}: {detail}" if detail else str(what))
        self.what = what


@dataclass(frozen=True)
class FoundStudies:
    """What a source holds.

    Attributes:
        studies: those that are complete.
        unsettled: how many are still arriving.
        nameless: how many have no SeriesInstanceUID, so that nothing can be done for them.
        passed_over: what else is there, and why it is passed over.
    """

    studies: list[FoundStudy] = field(default_factory=list)
    unsettled: int = 0
    nameless: int = 0
    passed_over: list[tuple[FoundStudy, PassedOver]] = field(default_factory=list)


@dataclass(frozen=True)
class FetchedStudy:
    """A study on this host's disk.

    Attributes:
        image: as a datalist has it: a file, a folder of one DICOM series, or a list of its files.
        files: of the DICOM series; empty for NIfTI, which gets no DICOM results.
    """

    image: str | list[str]
    files: tuple[Path, ...] = ()


class StudySource(Protocol):
    """Where studies come from, and results go to."""

    @property
    def folder(self) -> Path:
        """Folder below which :meth:`fetch` puts studies; results are named by the path in it."""

    def find(self) -> FoundStudies:
        """Return what is there now.

        Raises:
            SourceUnavailableError: when the source does not answer.
        """

    def fetch(self, study: FoundStudy) -> FetchedStudy:
        """Bring a study to disk.

        Raises:
            SourceUnavailableError: when the source does not answer.
            PassedOverError: when it is no volume.
            TryAgainError: when it cannot be fetched now, but perhaps later.
            StudyError: when it is not what it was found to be.
        """

    def store(self, files: Sequence[Path]) -> None:
        """Store DICOM results where they are looked for.

        Raises:
            SourceUnavailableError: when it does not answer.
            TryAgainError: when it refuses them.
        """

    def release(self, study: FoundStudy) -> None:
        """Remove what :meth:`fetch` left on disk."""
