"""DICOM segmentation of what reaches the threshold."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from multiad_med.dicom.write.instance import (
    FINDING,
    FINDING_CATEGORY,
    MAKER,
    AnomalyResult,
    DicomKind,
)
from multiad_med.inference.severity import SEVERITY_COLOURS, SeverityLevel, severity_levels

__all__ = ["Segments", "segmentation"]


class Segments(StrEnum):
    """What a segmentation tells apart."""

    SEVERITY_LEVELS = "levels"
    """One segment for each :class:`multiad_med.inference.SeverityLevel`; they do not overlap."""
    BINARY = "binary"
    """One segment of all that reaches the threshold."""


_GRADES: dict[SeverityLevel, Code] = {
    SeverityLevel.LOW: codes.SCT.Low,
    SeverityLevel.MODERATE: codes.SCT.Moderate,
    SeverityLevel.HIGH: codes.SCT.High,
}


def segmentation(result: AnomalyResult, segments: Segments) -> Dataset | None:
    """Return a binary segmentation, without frames in which a segment has no pixel.

    All segments of the choice are described, even one without pixels.

    Returns:
        The object; None where no voxel reaches the threshold, since a segmentation cannot be empty.
    """
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription

    levels = result.levels
    label = severity_levels(result.values, levels)
    if not label.any():
        return None
    lowest = {
        SeverityLevel.LOW: levels.low,
        SeverityLevel.MODERATE: levels.moderate,
        SeverityLevel.HIGH: levels.high,
    }
    if segments is Segments.BINARY:
        label = np.minimum(label, 1)
        lowest = {SeverityLevel.LOW: levels.low}
    descriptions = []
    for level, threshold in lowest.items():
        graded = segments is Segments.SEVERITY_LEVELS
        description = SegmentDescription(
            segment_number=int(level),
            segment_label=f"Anomaly, {level.name.lower()}" if graded else "Anomaly",
            segmented_property_category=FINDING_CATEGORY,
            segmented_property_type=FINDING,
            algorithm_type="AUTOMATIC",
            algorithm_identification=AlgorithmIdentificationSequence(
                **result.algorithm(),
                source=f"The {MAKER} authors",
                parameters={"threshold": f"{threshold:.6g}", "model_sha256": result.model},
            ),
            tracking_uid=result.uid("segment", int(level), segments),
            tracking_id=f"anomaly-{level.name.lower()}" if graded else "anomaly",
            display_color=CIELabColor.from_rgb(*SEVERITY_COLOURS[level]),
        )
        if graded:
            _grade(description, _GRADES[level])
        descriptions.append(description)
    return Segmentation(
        source_images=result.source.headers,
        pixel_array=result.source.as_stored(label),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        sop_instance_uid=result.uid(DicomKind.SEG, segments),
        instance_number=1,
        content_label="ANOMALY",
        content_description="What reaches the anomaly threshold",
        content_creator_name=f"{MAKER}^",
        **result.series(DicomKind.SEG, "Anomaly segmentation", segments),
    )


def _grade(description: Dataset, grade: Code) -> None:
    from highdicom.sr import CodedConcept

    kind = description.SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept.from_code(grade)]
