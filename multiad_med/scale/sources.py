"""Which studies a run is about: a folder, a datalist, a table, or a search of a DICOMweb server."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from monai.bundle import ConfigParser

from multiad_med.data import DatalistError
from multiad_med.inference.predictor import StudyPredictor, made
from multiad_med.preparation.sources import StudyKind
from multiad_med.scale.fetch import check_scheme, fetch_folder, is_uri, local_path, results_folder
from multiad_med.utils.configs import literal
from multiad_med.utils.errors import InputError, file_errors

__all__ = ["ListedStudies", "ListedStudy", "list_studies"]

_TABLES = (".parquet", ".csv", ".jsonl", ".json")
_FILES = ("image", "organ")


@dataclass(frozen=True)
class ListedStudy:
    """One study of a run.

    Attributes:
        item: as in a datalist, with paths of this machine.
        uris: where its files come from, by their key, if they are not on disk.
        id: what a table calls it.
        version: of a DICOMweb server's series, how many instances it has.
    """

    item: dict[str, Any]
    uris: dict[str, str] = field(default_factory=dict)
    id: str = ""
    version: str = ""


@dataclass(frozen=True)
class ListedStudies:
    """The studies of a run.

    Attributes:
        studies: in order.
        source: folder that results are named from.
    """

    studies: list[ListedStudy]
    source: Path


def list_studies(source: str, predictor: StudyPredictor, *, output: str | Path) -> ListedStudies:
    """Return the studies of a source.

    Args:
        source: what the bundle's own inference takes; or a table (``.parquet``, ``.csv``, ``.jsonl``, or
            ``.json`` with a list) with the column ``image`` and, optionally, ``organ`` and ``id``, of
            paths, which are relative to the table, or addresses that fsspec reads; or the address of a
            DICOMweb server, with what is searched for, such as ``?StudyDate=20260101-``.
        predictor: of the model.
        output: of the results: a folder or an address.

    Raises:
        InputError: on a table that is none, or an address that cannot be read.
        DatalistError: when there is no study.
    """
    folder = fetch_folder(output)
    is_table = _format(source) in _TABLES
    if source.startswith(("http://", "https://")) and not is_table:
        return ListedStudies(_found_series(source, predictor.kind, folder), folder)
    rows = _table(source) if is_table and not _is_datalist(source) else None
    if rows is None:
        return _of_bundle(source, predictor, results_folder(output))
    studies = [_study(row, number, source, folder) for number, row in enumerate(rows, start=1)]
    if not studies:
        raise DatalistError(f"{source} has no row.")
    for uri in {uri.partition("://")[0]: uri for s in studies for uri in s.uris.values()}.values():
        check_scheme(uri)
    remote = any(study.uris for study in studies)
    return ListedStudies(studies, folder if remote else Path(source).absolute().parent)


def _format(source: str) -> str:
    """Return the suffix of a path, or of an address that may go on after a ``?``, in small letters."""
    path = source.partition("?")[0] if is_uri(source) else source
    return os.path.splitext(path)[1].lower()


def _is_datalist(source: str) -> bool:
    """Return whether a JSON file is an object with splits; a table is a list of rows."""
    path = Path(source).expanduser()
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with file_errors(path), path.open(encoding="utf-8-sig", errors="replace") as stream:
        return stream.read(1024).lstrip().startswith("{")


def _table(source: str) -> list[dict[str, Any]]:
    import fsspec

    try:
        with file_errors(source), fsspec.open(source, "rb") as stream:
            content = stream.read()
    except (ImportError, ValueError) as error:
        raise InputError(f"{source} cannot be read: {error}") from error
    try:
        rows: list[dict[str, Any]] = _rows(content, _format(source))
    except Exception as error:  # the formats' packages have many types
        raise InputError(f"{source} is not a readable table: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{source}: each row must have the column `image`; some are no rows.")
    return rows


def _rows(content: bytes, suffix: str) -> Any:
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(io.BytesIO(content)).to_pylist()
    text = content.decode("utf-8-sig")
    if suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    if suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return json.loads(text)


def _study(row: Mapping[str, Any], number: int, source: str, folder: Path) -> ListedStudy:
    item: dict[str, str] = {}
    uris = {}
    for key in _FILES:
        name = row.get(key)
        if not name and key != "image":
            continue
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{source}, row {number}: the column `{key}` must be a path or an address, got {name!r}. "
                f"The columns are {sorted(map(str, row))}."
            )
        name = name.removeprefix("file://")
        if is_uri(name):
            uris[key] = name
            place = local_path(name, folder)
            if key != "image":  # each has its own, which goes with it
                own = hashlib.sha256(item["image"].encode()).hexdigest()[:12]
                place = folder / "organs" / f"{own}_{place.name}"
            item[key] = str(place)
        elif is_uri(source) and not os.path.isabs(name):
            raise InputError(f"{source}, row {number}: give an address, not the path {name}.")
        else:
            item[key] = os.path.join(os.path.dirname(source), name)
    called = row.get("id")
    return ListedStudy(item, uris, "" if called is None else str(called))


def _of_bundle(source: str, predictor: StudyPredictor, output_dir: Path) -> ListedStudies:
    """List the studies as the bundle's own inference does."""
    places = {"dataset_dir": literal(source), "output_dir": literal(str(output_dir))}
    parser = ConfigParser(predictor.config | places)
    items = made(parser, "datalist")[made(parser, "split")]
    if not items:
        raise DatalistError("There is no study to run: this split of the datalist is empty.")
    return ListedStudies([ListedStudy(dict(i)) for i in items], made(parser, "results").source)


def _found_series(address: str, kind: StudyKind | None, folder: Path) -> list[ListedStudy]:
    """Search a DICOMweb server."""
    from multiad_med.serving.dicomweb import DicomwebSource

    if kind in (None, StudyKind.OCT):
        raise InputError(
            f"{address}: a DICOMweb server is searched for volumes of MR or CT only. Give a folder."
        )
    parts = urlsplit(address)
    url = parts._replace(query="", fragment="").geturl().rstrip("/")
    filters = dict(parse_qsl(parts.query))
    server = DicomwebSource(url, kind=kind, folder=folder, filters=filters, settle=0)
    found = []
    for one in server.find().studies:
        uri = f"{url}/studies/{json.loads(one.place)['study']}/series/{one.key}"
        image = str(local_path(uri, folder))
        found.append(ListedStudy({"image": image}, {"image": uri}, one.key, one.version))
    if not found:
        raise DatalistError(f"{address}: the server has no such series.")
    return found
