"""Studies of a PACS that speaks DICOMweb: found by QIDO-RS, fetched by WADO-RS, stored by STOW-RS."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.utils import optional_import
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError

from multiad_med.data.study_errors import StudyError
from multiad_med.dicom.read import find_series
from multiad_med.dicom.read.header import is_uid, read_header, why_no_slice
from multiad_med.preparation.sources import StudyKind
from multiad_med.serving.answers import TIMEOUT, AnswerError, WebPageError, check_answer, reason_of
from multiad_med.serving.ledger import FoundStudy, PassedOver
from multiad_med.serving.service_errors import ServingError, SourceUnavailableError, TryAgainError
from multiad_med.serving.study_source import FetchedStudy, FoundStudies, PassedOverError

__all__ = ["DicomwebSource", "save_instances"]

_STUDY, _SERIES, _INSTANCES = "0020000D", "0020000E", "00201209"
_PAGE = 500
_BATCH = 50
_DUPLICATE = 0x0111
_AWAY = {401, 403, 407, 408, 425, 429, 502, 503, 504}  # statuses that are about no study
_NO_STUDY = (
    "the server's search gives no StudyInstanceUID for it, without which it cannot be asked for"
)


class DicomwebSource:
    """Find and fetch series on a DICOMweb server, and store their results there.

    A series is complete when its number of instances was the same for ``settle`` seconds. UIDs that
    the server sends are checked before they become names of files or parts of addresses.
    Credentials are taken from ``~/.netrc``, certificates from ``REQUESTS_CA_BUNDLE``.

    Args:
        url: of the service, such as ``http://127.0.0.1:8042/dicom-web``.
        kind: what the volumes are.
        folder: on this host, for series while they are processed.
        filters: QIDO attributes that series must have, such as ``{"StudyDate": "20260101-"}``.
            The modality is that of ``kind`` unless it is one of them.
        settle: seconds without a new instance.
        timeout: seconds to connect, and seconds without a byte of an answer.

    Raises:
        ServingError: when dicomweb-client is not installed, the address is not valid, or a filter is
            not a keyword of DICOM.
    """

    def __init__(
        self,
        url: str,
        *,
        kind: StudyKind,
        folder: str | Path,
        filters: Mapping[str, str] | None = None,
        settle: float = 30.0,
        timeout: tuple[float, float] = TIMEOUT,
    ) -> None:
        for name in filters or {}:
            if tag_for_keyword(name) is None:
                raise ServingError(
                    f"A PACS is searched by attributes of DICOM such as StudyDate; {name!r} is none."
                )
        client, found = optional_import("dicomweb_client", name="DICOMwebClient")
        if not found:
            raise ServingError("A DICOMweb source needs: pip install 'multiad-med[pacs]'")
        try:
            self._client = client(url.rstrip("/"), timeout=timeout, callback=check_answer)
        except ValueError as error:
            raise ServingError(f"The DICOMweb server's address is not valid: {error}") from error
        self._client.set_http_retry_params(retry=False)  # the ledger knows when to try again
        self.kind = kind
        self.folder = Path(folder)
        self.filters = {"Modality": kind.modality, **(filters or {})}
        self.settle = settle
        self._since: dict[str, tuple[str, float]] = {}

    def find(self) -> FoundStudies:
        """Return the series that match, as the server lists them now.

        A series with an invalid UID is listed too, so that its failure is on record.

        Raises:
            SourceUnavailableError: when the server does not answer, or refuses.
        """
        with _requests(_away):
            try:
                return self._find()
            except (AttributeError, LookupError, TypeError) as error:
                raise _away("its answer is not DICOM's JSON") from error

    def _find(self) -> FoundStudies:
        studies, unsettled, nameless, now = [], 0, 0, time.monotonic()
        since, self._since = self._since, {}
        for one in self._series():
            study, series = _value(one, _STUDY), _value(one, _SERIES)
            if not series:
                nameless += 1
                continue
            count = _value(one, _INSTANCES)
            seen = since.get(series)
            start = seen[1] if seen and seen[0] == count else now
            self._since[series] = (count, start)
            if now - start < self.settle:
                unsettled += 1
            else:
                studies.append(FoundStudy(series, count, json.dumps({"study": study})))
        return FoundStudies(studies, unsettled, nameless)

    def _answers(self) -> bool:
        """Return whether the server answers, asked when a request about one study had no answer."""
        try:
            with _requests(_away):
                self._client.search_for_series(search_filters=self.filters, limit=1)
        except SourceUnavailableError:
            return False
        return True

    def _series(self) -> Iterator[Mapping[str, Any]]:
        """Yield all pages of the search, until one brings nothing new; servers have their own limits."""
        known: set[str] = set()
        while True:
            page = self._client.search_for_series(
                search_filters=self.filters,
                fields=["StudyInstanceUID", "NumberOfSeriesRelatedInstances"],
                limit=_PAGE,
                offset=len(known),
            )
            new = [one for one in page if _value(one, _SERIES) not in known]
            known.update(_value(one, _SERIES) for one in new)
            yield from new
            if not new:
                return

    def fetch(self, study: FoundStudy) -> FetchedStudy:
        """Retrieve a series, in the transfer syntax of the server, into a folder named by its UID.

        Raises:
            SourceUnavailableError: when the server does not answer.
            PassedOverError: when the series is no volume, such as a localiser, or of another modality.
            DicomSeriesError: when it is damaged.
            TryAgainError: when it cannot be had, or is not whole.
            StudyError: when it is not what was asked for.
        """
        target = self.folder / _checked(study.key)
        partial = self.folder / f"{study.key}.partial"  # one name, so that none stays after a kill
        for earlier in (partial, target):
            shutil.rmtree(earlier, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            with _requests(
                lambda reason: TryAgainError(f"series {study.key}: {reason}"), there=self._answers
            ):
                self._retrieve(study, partial)
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        search = find_series(target)
        if not search.series:
            for path, _ in search.skipped:
                _check_header(path)
            why = search.skipped[0][1] if search.skipped else "an empty series"
            raise PassedOverError(PassedOver.NOT_A_VOLUME, why)
        found = search.series[0]
        if found.modality != self.kind.modality:  # a server may overlook the search's filter
            raise PassedOverError(
                PassedOver.MODALITY,
                f"{found.modality or 'unknown'}; the model takes {self.kind.modality}",
            )
        files = found.files
        if self.kind is StudyKind.OCT and len(files) > 1:
            raise StudyError(f"series {study.key}: {len(files)} objects; one was expected.")
        single = self.kind is StudyKind.OCT
        return FetchedStudy(str(files[0] if single else target), files)

    def _retrieve(self, study: FoundStudy, folder: Path) -> None:
        place = json.loads(study.place)["study"]
        if not place:
            raise StudyError(f"series {study.key}: {_NO_STUDY}.")
        try:
            instances = self._client.iter_series(
                _checked(place), study.key, media_types=(("application/dicom", "*"),)
            )
            count = save_instances(instances, study.key, folder)
        except (ValueError, EOFError, InvalidDicomError) as error:
            raise TryAgainError(f"series {study.key}: what came is not DICOM: {error}") from error
        if not count:
            raise TryAgainError(f"series {study.key}: the server sent no instance.")
        if study.version.isdecimal() and count < int(study.version):
            raise TryAgainError(
                f"series {study.key}: the server sent {count} of {study.version} instances."
            )

    def store(self, files: Sequence[Path]) -> None:
        """Store DICOM objects; those that the server has already are stored.

        Raises:
            SourceUnavailableError: when the server does not answer.
            TryAgainError: when it refuses some.
        """
        for start in range(0, len(files), _BATCH):
            datasets = [dcmread(path) for path in files[start : start + _BATCH]]
            with _requests(
                lambda reason: TryAgainError(f"The PACS refused results: {reason}"),
                there=self._answers,
            ):
                answer = self._client.store_instances(datasets)
            _check_stored(answer, [str(dataset.SOPInstanceUID) for dataset in datasets])

    def release(self, study: FoundStudy) -> None:
        """Remove the series' folder, if there is one."""
        if is_uid(study.key):
            shutil.rmtree(self.folder / study.key, ignore_errors=True)


def _value(item: Mapping[str, Any], tag: str) -> str:
    """Return an attribute of DICOM's JSON as text, empty if absent."""
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _checked(uid: str) -> str:
    if not is_uid(uid):
        raise StudyError(f"{uid[:64]!r} is no UID.")
    return uid


def _check_header(path: Path) -> None:
    """Refuse a damaged file; :func:`find_series` passes over those like files that are no slices.

    Raises:
        DicomSeriesError: when the file is damaged.
    """
    header = read_header(path)
    if header is not None:
        why_no_slice(header, path)


def save_instances(instances: Iterable[Dataset], series: str, folder: Path) -> int:
    """Write a series' instances, named by their UIDs; return how many there are.

    Raises:
        StudyError: when one is of another series, or its UID is not valid.
    """
    for dataset in instances:
        if str(dataset.get("SeriesInstanceUID")) != series:
            raise StudyError(f"series {series}: the server sent an instance of another series.")
        name = _checked(str(dataset.get("SOPInstanceUID")))
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return len(list(folder.iterdir()))


def _check_stored(answer: Dataset, uids: Sequence[str]) -> None:
    """Compare what the server says it has with what it was sent; some answer 200 and keep nothing."""
    kept = {
        str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or []
    }
    reasons = set()
    for item in answer.get("FailedSOPSequence") or []:
        reason = int(item.get("FailureReason", 0))
        if reason == _DUPLICATE:
            kept.add(str(item.ReferencedSOPInstanceUID))
        else:
            reasons.add(f"0x{reason:04x}")
    missing = [uid for uid in uids if uid not in kept]
    if missing:
        raise TryAgainError(
            f"The PACS did not store {len(missing)} of {len(uids)} results"
            + (f", failure reasons {', '.join(sorted(reasons))}." if reasons else ".")
        )


def _away(reason: str) -> SourceUnavailableError:
    return SourceUnavailableError(f"The DICOMweb server does not answer as it should: {reason}.")


@contextmanager
def _requests(
    refused: Callable[[str], Exception], *, there: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Turn errors of requests into ones that tell a server that is away from one that refuses.

    Args:
        refused: makes the error of a refusal from its reason.
        there: whether the server answers anything at all, asked where an answer did not come.
    """
    from requests import HTTPError, RequestException

    try:
        yield
    except HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        raise (_away if status in _AWAY else refused)(reason_of(error)) from error
    except WebPageError as error:
        raise _away(str(error)) from error
    except (AnswerError, RequestException) as error:
        raise (refused if there() else _away)(reason_of(error)) from error
