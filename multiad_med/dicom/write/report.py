"""DICOM structured report (TID 1500): score, p-value, decision, and what was found where."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from scipy import ndimage

from multiad_med.dicom.write.instance import (
    ANOMALY,
    FINDING,
    FINDING_CATEGORY,
    MAKER,
    SCHEME,
    AnomalyResult,
    DicomKind,
)

__all__ = ["MOST_FINDINGS", "report"]

MOST_FINDINGS = 20
"""How many findings are listed one by one, those with the highest values."""

_SCORE = Code("score", SCHEME, "Anomaly score of the study")
_THRESHOLD = Code("score-threshold", SCHEME, "Threshold of the anomaly score")
_P_VALUE = Code("p-value", SCHEME, "P-value of the score among held-out normal studies")
_COUNT = Code("findings", SCHEME, "Number of regions above the threshold of the map")
_DECISION = Code("decision", SCHEME, "Decision by the threshold")
_REACHED = Code("reached", SCHEME, "The score reaches the threshold")
_BELOW = Code("below", SCHEME, "The score is below the threshold")
_NO_VERDICT = Code("no-verdict", SCHEME, "No verdict: too few held-out normal studies")


@dataclass(frozen=True)
class _Finding:
    place: tuple[int, ...]
    peak: float
    volume: float


def report(result: AnomalyResult) -> Dataset:
    """Return a comprehensive structured report of the scores.

    For the study it has score, p-value, threshold (where there is one), decision, number of findings.
    Findings are regions that reach the map's threshold, connected through faces, edges or corners; each
    that is listed has the point and value of its maximum, and its volume.
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        ComprehensiveSR,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )

    headers = result.source.headers
    observer = ObserverContext(
        observer_type=CodedConcept.from_code(codes.DCM.Device),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=result.uid("observer"),
            name=MAKER,
            manufacturer_name=f"The {MAKER} authors",
            model_name=result.software[0],
            serial_number=result.model,
        ),
    )
    algorithm = AlgorithmIdentification(**result.algorithm())
    findings, count = _findings(result)
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[
            _study(result, count, algorithm),
            *(_finding(result, i, f, algorithm) for i, f in enumerate(findings, 1)),
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return ComprehensiveSR(
        evidence=headers,
        content=content[0],
        sop_instance_uid=result.uid(DicomKind.REPORT),
        instance_number=1,
        is_complete=True,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                SCHEME,
                name=MAKER,
                version=version("multiad-med"),
                responsible_organization=f"The {MAKER} authors",
            )
        ],
        **result.series(DicomKind.REPORT, "Anomaly report"),
    )


def _findings(result: AnomalyResult) -> tuple[list[_Finding], int]:
    """Return the findings with the highest values, highest first, and how many there are in all."""
    labels, count = ndimage.label(result.values >= result.threshold, structure=np.ones((3, 3, 3)))
    inside = np.flatnonzero(labels)
    regions, values = labels.ravel()[inside], result.values.ravel()[inside]
    sizes = np.bincount(regions, minlength=count + 1)[1:]
    # Region after region, each with its highest value first.
    peaks = np.lexsort((-values, regions))[np.cumsum(sizes) - sizes]
    voxel = abs(float(np.linalg.det(result.source.stack.geometry.affine[:3, :3])))
    listed = []
    for region in np.argsort(-values[peaks], kind="stable")[:MOST_FINDINGS]:
        peak = peaks[region]
        place = tuple(int(i) for i in np.unravel_index(inside[peak], labels.shape))
        listed.append(_Finding(place, float(values[peak]), float(sizes[region]) * voxel))
    return listed, int(count)


def _study(result: AnomalyResult, count: int, algorithm: Any) -> Any:
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    decision = {True: _REACHED, False: _BELOW, None: _NO_VERDICT}[result.flagged]
    measured: list[tuple[Code, float]] = [(_SCORE, result.score), (_P_VALUE, result.p_value)]
    if result.score_threshold is not None:
        measured.append((_THRESHOLD, result.score_threshold))
    measured.append((_COUNT, count))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(result.uid("study"), "Whole study"),
        algorithm_id=algorithm,
        measurements=[
            Measurement(name=name, value=value, unit=codes.UCUM.NoUnits) for name, value in measured
        ],
        qualitative_evaluations=[QualitativeEvaluation(_DECISION, decision)],
        source_images=[
            SourceImageForMeasurementGroup.from_source_image(header)
            for header in result.source.headers
        ],
    )


def _finding(result: AnomalyResult, number: int, finding: _Finding, algorithm: Any) -> Any:
    from highdicom.sr import (
        ImageRegion,
        Measurement,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        SourceImageForRegion,
        TrackingIdentifier,
    )

    place, row, column = finding.place
    source = result.source
    header = source.header(place)
    frame = source.stack.frames[place].index + 1
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(result.uid("finding", number), f"Region {number}"),
        # The centre of the first pixel lies at (0.5, 0.5).
        referenced_region=ImageRegion(
            graphic_type="POINT",
            graphic_data=np.array([[column + 0.5, row + 0.5]]),
            source_image=SourceImageForRegion(
                header.SOPClassUID,
                header.SOPInstanceUID,
                referenced_frame_numbers=[frame] if source.is_multi_frame else None,
            ),
        ),
        finding_type=FINDING,
        algorithm_id=algorithm,
        measurements=[
            Measurement(
                name=ANOMALY,
                value=finding.peak,
                unit=codes.UCUM.NoUnits,
                derivation=codes.SCT.Maximum,
            ),
            Measurement(
                name=codes.SCT.Volume, value=finding.volume, unit=codes.UCUM.CubicMillimeter
            ),
        ],
        finding_category=FINDING_CATEGORY,
    )
