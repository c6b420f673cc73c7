"""DICOM parametric map: the anomaly map itself, in float32."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from multiad_med.dicom.read.header import text
from multiad_med.dicom.write.instance import ANOMALY, MAKER, AnomalyResult, DicomKind

__all__ = ["parametric_map"]


def parametric_map(result: AnomalyResult) -> Dataset:
    """Return the map as float32 frames, one for each slice, shown from 0 to 1."""
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    image = ParametricMap(
        source_images=result.source.headers,
        pixel_array=result.source.as_stored(result.values),
        sop_instance_uid=result.uid(DicomKind.PARAMETRIC_MAP),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="ANOMALY",
                lut_explanation=f"Calibrated anomaly, threshold {result.threshold:g}",
                unit=codes.UCUM.NoUnits,
                value_range=(0.0, 1.0),
                quantity_definition=ANOMALY,
            )
        ],
        # LINEAR has no windows as narrow as this.
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=0.5, window_width=1.0, voi_lut_function="LINEAR_EXACT"
            )
        ],
        content_label="ANOMALY",
        content_description="Calibrated anomaly map",
        content_creator_name=f"{MAKER}^",
        **result.series(DicomKind.PARAMETRIC_MAP, "Anomaly map"),
    )
    header = result.source.headers[0]
    image.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(header)]
    _sort_along_normal(image)
    return image


def _sort_along_normal(image: Dataset) -> None:
    """Order frames along rows x columns, as dcmqi, and so 3D Slicer, expects.

    highdicom stores them the other way round; programs that look at positions accept either.
    """
    groups = image.PerFrameFunctionalGroupsSequence
    orientation = image.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    cosines = np.asarray(orientation.ImageOrientationPatient, dtype=float)
    places = [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
    order = np.argsort(np.asarray(places, dtype=float) @ np.cross(cosines[:3], cosines[3:]))
    frames = np.frombuffer(image.FloatPixelData, dtype="<f4").reshape(len(groups), -1)
    image.FloatPixelData = frames[order].tobytes()
    image.PerFrameFunctionalGroupsSequence = [groups[int(index)] for index in order]
    for number, group in enumerate(image.PerFrameFunctionalGroupsSequence, 1):
        group.FrameContentSequence[0].DimensionIndexValues = [number]


def _anatomy(header: Dataset) -> Dataset:
    """Return the anatomy of frames, without which dcmqi, and so 3D Slicer, crashes on the map."""
    from highdicom.sr import CodedConcept

    anatomy = Dataset()
    anatomy.FrameLaterality = text(header, "Laterality") or "U"
    anatomy.AnatomicRegionSequence = header.get("AnatomicRegionSequence") or [
        CodedConcept.from_code(codes.SCT.Tissue)
    ]
    return anatomy
