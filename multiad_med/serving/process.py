"""Processing of a study: the bundle's results, and DICOM objects of them."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from monai.utils import optional_import

from multiad_med.dicom.write.referenced_series import DicomResultError
from multiad_med.dicom.write.results import DicomKind, write_dicom_results
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.serving.service_errors import ServingError
from multiad_med.serving.study_source import FetchedStudy

__all__ = ["StudyProcessor"]


class StudyProcessor:
    """Make a study's map, mask and scores; of a DICOM series, DICOM objects of them too.

    A study that is processed again by the same model gives DICOM objects of the same UIDs.

    Args:
        predictor: makes the map.
        source: folder that the studies lie below; results are named by the path in it.
        output_dir: folder of the results.
        kinds: of DICOM objects; none makes none.

    Raises:
        ServingError: when there are kinds, and highdicom is not installed.
    """

    def __init__(
        self,
        predictor: StudyPredictor,
        *,
        source: Path,
        output_dir: Path,
        kinds: Collection[DicomKind],
    ) -> None:
        if kinds and not optional_import("highdicom")[1]:
            raise ServingError(
                "DICOM results need: pip install 'multiad-med[pacs]'. Or choose --kind none."
            )
        self.predictor = predictor
        self.source = source
        self.output_dir = output_dir
        self.kinds = kinds

    def __call__(self, study: FetchedStudy) -> list[Path]:
        """Return the DICOM objects, kind by kind.

        Raises:
            StudyError: when the study cannot be read.
            DicomResultError: when no DICOM objects can be made of it.
        """
        result = self.predictor(study.image, source=self.source, output_dir=self.output_dir)
        if not study.files or not self.kinds:
            return []
        shutil.rmtree(result.folder, ignore_errors=True)
        try:
            written = write_dicom_results(
                source=study.image,
                anomaly_map=result.map_file,
                scores=result.scores,
                output_dir=result.folder,
                kinds=self.kinds,
            )
        except DicomResultError as error:
            raise DicomResultError(
                f"{error} Its map is {result.map_file}. To serve such series without DICOM results, "
                "start with --kind none, and let `multiad serve retry` have this one done again."
            ) from error
        return [path for kind in written for path in written[kind]]
