"""A MONAI Deploy application: a DICOM series in, a DICOM SEG of what is unusual out.

    python docs/deploy/app.py --input SERIES --output FOLDER --model BUNDLE

BUNDLE is a copy of a bundle with the trained ``models/model.pt`` in it, or a ``model.ts`` exported with
its configs; docs/deployment.md says how, and what to install.
"""

from __future__ import annotations

from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators import (
    BundleConfigNames,
    DICOMDataLoaderOperator,
    DICOMSegmentationWriterOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
    IOMapping,
    MonaiBundleInferenceOperator,
)
from monai.deploy.operators.dicom_seg_writer_operator import SegmentDescription
from pydicom.sr.codedict import codes


class AnomalyApp(Application):
    """Loader, selector, volume, bundle, SEG writer."""

    def compose(self) -> None:
        """Connect the operators."""
        context: AppContext = Application.init_app_context(self.argv)
        if Path(context.model_path).is_dir():
            context.models = None  # or the SDK would run the folder itself as the network
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="loader"
        )
        selector = DICOMSeriesSelectorOperator(self, name="selector")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        bundle = MonaiBundleInferenceOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            app_context=context,
            bundle_path=Path(context.model_path),
            bundle_config_names=BundleConfigNames(config_names=["inference", "inference_deploy"]),
            name="bundle",
        )
        anomaly = SegmentDescription(
            segment_label="Unusual",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Abnormal,
            algorithm_name="Multi-AD",
            algorithm_family=codes.DCM.ArtificialIntelligence,
            algorithm_version="0.1.0",
        )
        writer = DICOMSegmentationWriterOperator(
            self,
            segment_descriptions=[anomaly],
            output_folder=Path(context.output_path),
            name="writer",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(
            selector, volume, {("study_selected_series_list", "study_selected_series_list")}
        )
        self.add_flow(volume, bundle, {("image", "image")})
        self.add_flow(
            selector, writer, {("study_selected_series_list", "study_selected_series_list")}
        )
        self.add_flow(bundle, writer, {("pred", "seg_image")})


if __name__ == "__main__":
    AnomalyApp().run()
