"""MONAI Label's datastores, with names checked before they become paths."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from cachetools import TTLCache, cached
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.utils.sessions import SessionInfo, Sessions
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from multiad_med.data import FailureKind, StudyError, study_errors
from multiad_med.dicom.read.header import is_uid
from multiad_med.dicom.write.instance import MAKER
from multiad_med.inference import StudyMapWriter
from multiad_med.label.server_options import check_name, check_tag, check_uid
from multiad_med.readers import LoadVolume
from multiad_med.serving.answers import AnswerError, reason_of
from multiad_med.serving.dicomweb import save_instances

__all__ = [
    "HEATMAP_TAG",
    "NORMAL_TAG",
    "ORGAN_TAG",
    "CheckedSessions",
    "FolderDatastore",
    "SeriesDatastore",
    "normal_studies",
    "organ_mask",
]

_logger = logging.getLogger(__name__)

HEATMAP_TAG = "heatmap"
"""Tag of the float32 map of a study."""
ORGAN_TAG = "organ"
"""Tag of an organ mask, which models of an organ take their foreground from."""
NORMAL_TAG = "normal"
"""Tag of an empty final label where labels go to a PACS: there is no empty DICOM SEG."""


def is_empty_label(path: str | Path) -> bool:
    """Return whether a label file, or OHIF's plain bytes (``.bin``), marks nothing.

    Raises:
        HTTPException: 422 when it is no volume.
    """
    if str(path).endswith(".bin"):
        return not np.fromfile(path, dtype=np.uint8).any()
    try:
        with study_errors({"image": str(path)}):
            return not bool(torch.as_tensor(LoadVolume()(path)).any())
    except StudyError as error:
        status = 422 if error.kind is FailureKind.STUDY else 500
        raise HTTPException(status, f"The label cannot be read: {error}") from error


class _CheckedNames:
    """Check names of images and tags of labels, and that a final label is a volume.

    A mix-in, for a datastore class to its right.
    """

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        if image_id:
            check_name(image_id, "image")
        return super().add_image(image_id, image_filename, image_info)  # type: ignore[misc]

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Any, **options: Any
    ) -> str:
        check_name(image_id, "image")
        check_tag(label_tag)
        if label_tag == DefaultLabelTag.FINAL:
            is_empty_label(label_filename)  # so that training can read it
        return super().save_label(  # type: ignore[misc]
            image_id, label_filename, label_tag, label_info, **options
        )

    def get_label_uri(self, label_id: str, label_tag: str, *args: Any, **options: Any) -> str:
        check_name(label_id, "label")
        check_tag(label_tag)
        return super().get_label_uri(label_id, label_tag, *args, **options)  # type: ignore[misc]


class FolderDatastore(_CheckedNames, LocalDatastore):
    """A folder of studies."""

    def get_image_uri(self, image_id: str) -> str:
        """Return the study's file.

        Raises:
            HTTPException: 404 when the folder has no such study.
        """
        path: str = super().get_image_uri(image_id)
        if not path:
            raise HTTPException(404, f"There is no study {image_id!r} in this datastore.")
        return path

    def is_normal(self, image_id: str) -> bool:
        """Return whether the study's final label is there and empty."""
        final = DefaultLabelTag.FINAL.value
        if final not in self.get_labels_by_image_id(image_id):
            return False
        return is_empty_label(self.get_label_uri(image_id, final))


# What pydicom and its client raise over an answer that is no DICOM, or lacks what it must have.
_NO_DICOM = (
    AttributeError,
    EOFError,
    InvalidDicomError,
    LookupError,
    StudyError,
    TypeError,
    ValueError,
)


@contextmanager
def _answering(server: str) -> Iterator[None]:
    try:
        yield
    except (AnswerError, requests.RequestException) as error:
        reason = reason_of(error)
    except _NO_DICOM as error:
        reason = f"what came is not DICOM: {error}"
    else:
        return
    raise HTTPException(502, f"The DICOMweb server {server} failed: {reason}")


class SeriesDatastore(_CheckedNames, DICOMWebDatastore):
    """The series of a DICOMweb server.

    A series is read by :class:`multiad_med.dicom.read.DicomSeriesReader`. It refuses a missing slice,
    where MONAI Label's own conversion would go on with wrong positions. A series is whole in the cache
    or not there, whatever happens to the server meanwhile.

    Args:
        modalities: of the series that are listed.
        kwargs: those of MONAI Label's ``DICOMWebDatastore``.
    """

    def __init__(self, *, modalities: Sequence[str], **kwargs: Any) -> None:
        self._modalities = tuple(modalities)
        self._download_lock = threading.RLock()
        super().__init__(**kwargs)

    @cached(cache=TTLCache(maxsize=16, ttl=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY))
    def list_images(self) -> list[str]:
        """Return the UIDs of the series of the models' modalities."""
        found = []
        for modality in self._modalities:
            filters = {**self._search_filter, "Modality": modality}
            with _answering(self._client.base_url):
                for answer in self._client.search_for_series(search_filters=filters):
                    uid = str(Dataset.from_json(answer).get("SeriesInstanceUID"))
                    if is_uid(uid):
                        found.append(uid)
                    else:
                        _logger.warning("A series without a SeriesInstanceUID is left out.")
        return found

    def get_image_uri(self, image_id: str) -> str:
        """Return the series as NIfTI in the cache.

        Raises:
            HTTPException: 400 for what is no UID, 404 for a series that is not there, 502 when the
                server does not answer.
            DicomSeriesError: when the series makes up no volume.
        """
        check_uid(image_id, "image")
        images = Path(self._datastore.image_path())
        path = images / f"{image_id}.nii.gz"
        with self._download_lock:
            if not path.exists() or image_id not in self._datastore.objects:
                self._convert(self._series(images / image_id), image_id)
        return os.path.realpath(path)

    def _series(self, folder: Path) -> Path:
        """Return the folder, filled with the series that it is named by."""
        if folder.is_dir() and any(folder.iterdir()):
            return folder
        partial = folder.with_name(f".partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with _answering(self._client.base_url):
            found = [
                Dataset.from_json(answer)
                for answer in self._client.search_for_series(
                    search_filters={"SeriesInstanceUID": folder.name},
                    fields=["StudyInstanceUID", "NumberOfSeriesRelatedInstances"],
                )
            ]
            studies = {str(one.get("StudyInstanceUID", "")) for one in found}
            if len(studies) != 1:
                raise HTTPException(
                    404, f"There is no series {folder.name} on {self._client.base_url}."
                )
            if studies == {""}:
                raise StudyError(f"no StudyInstanceUID of series {folder.name}")
            # As they are stored: not every server can decompress.
            instances = self._client.retrieve_series(
                studies.pop(), folder.name, media_types=(("application/dicom", "*"),)
            )
            count = save_instances(instances, folder.name, partial)
            expected = int(found[0].get("NumberOfSeriesRelatedInstances") or 1)
            if count < expected:
                raise StudyError(f"{count} of {expected} instances of series {folder.name}")
        shutil.rmtree(folder, ignore_errors=True)
        return partial.rename(folder)

    def _convert(self, folder: Path, image_id: str) -> None:
        volume = LoadVolume()(folder)
        writer = StudyMapWriter(output_dtype=volume.numpy().dtype)
        writer.set_data_array(volume, channel_dim=0)
        writer.set_metadata(volume.meta, resample=False)
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / f"{image_id}.nii.gz"
            writer.write(file)
            with _answering(self._client.base_url):
                self.add_image(image_id, str(file), self._dicom_info(image_id))

    def get_labeled_images(self, label_tag: Any = None, labels: Any = None) -> list[str]:
        """Return the series with a segmentation on the server, or marked as normal here.

        The segmentations that ``multiad serve`` and ``multiad dicom`` write do not count as labels.
        """
        found = set(self._datastore.filter_by_tag(NORMAL_TAG))
        with _answering(self._client.base_url):
            for answer in self._client.search_for_series(search_filters={"Modality": "SEG"}):
                series = Dataset.from_json(answer)
                about = self._client.retrieve_series_metadata(
                    series.StudyInstanceUID, series.SeriesInstanceUID
                )
                segmentation = Dataset.from_json(about[0])
                if segmentation.get("ManufacturerModelName") != MAKER:
                    sources = segmentation.get("ReferencedSeriesSequence") or []
                    found.update(str(source.SeriesInstanceUID) for source in sources)
        return sorted(found.intersection(self.list_images()))

    def is_normal(self, image_id: str) -> bool:
        """Return whether the series was given an empty final label here."""
        return NORMAL_TAG in self.get_labels_by_image_id(image_id)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Any, **options: Any
    ) -> str:
        """Save a label: a final one as DICOM SEG on the server, an empty one here, as normal."""
        if label_tag == DefaultLabelTag.FINAL and is_empty_label(label_filename):
            self.get_image_uri(image_id)
            return LocalDatastore.save_label(
                self, image_id, label_filename, NORMAL_TAG, label_info, **options
            )
        return super().save_label(image_id, label_filename, label_tag, label_info, **options)


class CheckedSessions(Sessions):
    """Uploads kept for a while; a session's name is checked before it becomes a path."""

    def get_session(self, session_id: str, *args: Any, **kwargs: Any) -> SessionInfo | None:
        """Return the session, or none."""
        return super().get_session(check_name(session_id, "session_id"), *args, **kwargs)


def organ_mask(datastore: Datastore, study: str) -> str | None:
    """Return the study's organ mask, a label with tag ``organ``, if there is one."""
    label = datastore.get_label_by_image_id(study, ORGAN_TAG)
    return str(datastore.get_label_uri(label, ORGAN_TAG)) if label else None


def normal_studies(datastore: FolderDatastore | SeriesDatastore) -> list[dict[str, str]]:
    """Return datalist items: the studies with an empty final label, by patient where known."""
    items = []
    for study in sorted(datastore.list_images()):
        if not datastore.is_normal(study):
            continue
        item = {"image": datastore.get_image_uri(study)}
        patient = datastore.get_image_info(study).get("PatientID")
        # They become a config, in which a text that begins with $ is code.
        item["subject"] = f"study {study}" if patient in (None, "", "UNK") else f"patient {patient}"
        if mask := organ_mask(datastore, study):
            item["organ"] = mask
        items.append(item)
    return items
