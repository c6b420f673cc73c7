"""What all DICOM results of one study have in common: identity, maker, and the codes they use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from multiad_med.dicom.read.header import text
from multiad_med.dicom.write.referenced_series import DicomResultError, ResultSource
from multiad_med.inference.severity import SeverityThresholds

__all__ = [
    "ANOMALY",
    "FINDING",
    "FINDING_CATEGORY",
    "MAKER",
    "SCHEME",
    "AnomalyResult",
    "DicomKind",
]

SCHEME = "99MULTIAD"

FINDING_CATEGORY: Code = codes.SCT.SpatialAndRelationalConcept
FINDING = Code("unusual-region", SCHEME, "Unusual region (unsupervised anomaly map)")
"""Code of a region above the threshold: a place that departs from normal images. A model that learned
from normal images only knows no lesion, so neither this code nor its category is one of disease."""

MAKER = "Multi-AD Med"
_UTF8 = "ISO_IR 192"
_SERIAL = 64
_UNNUMBERED = 99
_LARGEST_NUMBER = 2**31 // 100 - 1


ANOMALY = Code("anomaly", SCHEME, "Calibrated anomaly")
"""What the map's values are."""


class DicomKind(StrEnum):
    """Kinds of DICOM results."""

    SEG = "seg"
    """Segmentation of what reaches the threshold."""
    PARAMETRIC_MAP = "pm"
    """The map itself, float32."""
    OVERLAY = "overlay"
    """Secondary-capture images of the slices with the map's colours."""
    REPORT = "sr"
    """Structured report (TID 1500) of the scores."""


@dataclass(frozen=True)
class AnomalyResult:
    """A study's map and scores, on its series.

    Attributes:
        source: the series.
        values: the calibrated map ``(slices, rows, columns)`` in [0, 1], see
            :func:`multiad_med.dicom.write.referenced_series.place_map`.
        scores: what inference wrote beside the map.

    Raises:
        DicomResultError: when the scores lack something, or contradict themselves.
    """

    source: ResultSource
    values: NDArray[np.float32]
    scores: Mapping[str, Any]

    def __post_init__(self) -> None:
        try:
            told = [self.score, self.p_value, self.threshold]
            limit, flagged = self.score_threshold, self.flagged
        except (KeyError, TypeError, ValueError) as error:
            raise DicomResultError(
                f"The scores lack {error}. Run the bundle's inference again, and give the JSON that it "
                "writes beside the map; that of older versions has no verdict on the volume."
            ) from error
        if not np.isfinite([*told, *([] if limit is None else [limit])]).all() or not (
            0 < self.threshold < 1
        ):
            raise DicomResultError(
                "The scores must be finite, and the map's threshold in (0, 1); got score "
                f"{told[0]}, its p-value {told[1]}, its threshold {limit}, the map's threshold {told[2]}."
            )
        if (limit is None) is not (flagged is None):
            raise DicomResultError(
                f"The scores contradict themselves: the volume's threshold is {limit}, and its verdict "
                f"{flagged}. Run the bundle's inference again."
            )

    @property
    def score(self) -> float:
        """The volume's score."""
        return float(self.scores["volume_score"])

    @property
    def p_value(self) -> float:
        """The p-value of the volume's score among held-out normal volumes."""
        return float(self.scores["volume_p_value"])

    @property
    def score_threshold(self) -> float | None:
        """The score from which the volume is called anomalous; None where there is no verdict."""
        value = self.scores["thresholds"]["volume_score"]
        return None if value is None else float(value)

    @property
    def flagged(self) -> bool | None:
        """Whether the volume is called anomalous; None where there is no verdict."""
        value = self.scores["volume_flagged"]
        return None if value is None else bool(value)

    @property
    def threshold(self) -> float:
        """The threshold of the map."""
        return float(self.scores["thresholds"]["map"])

    @property
    def levels(self) -> SeverityThresholds:
        """The severity levels, which begin at the map's threshold."""
        return SeverityThresholds.above(self.threshold)

    @property
    def model(self) -> str:
        """What identifies the model: the hash of its state."""
        return str(self.scores.get("model_sha256") or "unknown")[:_SERIAL]

    @property
    def software(self) -> list[str]:
        """Names and versions of the software that made the map, this package first."""
        versions = {"multiad-med": version("multiad-med"), **self.scores.get("versions", {})}
        return [f"{name} {number}" for name, number in versions.items()]

    @cached_property
    def _digest(self) -> str:
        instances = sorted(header.SOPInstanceUID for header in self.source.headers)
        scores = {key: value for key, value in self.scores.items() if key != "image"}
        told = json.dumps([instances, scores, version("multiad-med")], sort_keys=True)
        return hashlib.sha256(told.encode() + self.values.tobytes()).hexdigest()

    def uid(self, *parts: object) -> str:
        """Return a UID that depends on the source's instances, map, scores, this version, and ``parts``.

        The same result made twice is thus one object for a PACS, wherever the files lay.
        """
        return generate_uid(entropy_srcs=[self._digest, *map(str, parts)])

    def series(self, kind: DicomKind, description: str, *parts: object) -> dict[str, Any]:
        """Return what highdicom's constructors take about a result's series and its maker.

        The series number is the source's, followed by two digits.
        """
        number = text(self.source.headers[0], "SeriesNumber")
        stem = int(number) if number.isdecimal() and 0 < int(number) <= _LARGEST_NUMBER else 0
        return {
            "series_instance_uid": self.uid(kind, *parts, "series"),
            "series_number": 100 * (stem or _UNNUMBERED) + [*DicomKind].index(kind) + 1,
            "series_description": description,
            "manufacturer": f"The {MAKER} authors",
            "manufacturer_model_name": MAKER,
            "software_versions": self.software,
            "device_serial_number": self.model,
            "specific_character_set": _UTF8,
        }

    def algorithm(self) -> dict[str, Any]:
        """Return what identifies the algorithm, as highdicom's constructors take it."""
        return {
            "name": MAKER,
            "version": self.software[0],
            "family": codes.DCM.ArtificialIntelligence,
        }
