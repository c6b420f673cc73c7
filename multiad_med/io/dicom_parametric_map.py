"""DICOM parametric map: the anomaly map itself, in float32."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.sr.codedict import codes

from multiad_med.io.dicom_result import ANOMALY, MAKER, AnomalyResult, DicomKind

__all__ = ["parametric_map"]


def parametric_map(result: AnomalyResult) -> Dataset:
    """The map as float32 frames, one for each slice, shown from 0 to 1."""
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
    # Empty: unknown, as the body part is.
    image.Laterality = result.source.headers[0].get("Laterality")
    return image
