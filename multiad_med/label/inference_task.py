"""Inference of a bundle as a MONAI Label task: severity levels for viewers, the map on request."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.utils.others.generic import device_list
from pydicom.sr.coding import Code

from multiad_med.detector import AnomalyDetector
from multiad_med.dicom.read.header import image_files, read_header, text
from multiad_med.dicom.write.instance import FINDING, FINDING_CATEGORY
from multiad_med.inference.severity import (
    SEVERITY_COLOURS,
    SeverityLevel,
    SeverityThresholds,
    severity_levels,
)
from multiad_med.label.server_options import InferOptions, ResultType, check_device, check_name
from multiad_med.resources import read_config
from multiad_med.result import Result
from multiad_med.utils.nifti_files import save_nifti

__all__ = ["HEATMAP_FILE", "LABELS", "AnomalyInferTask", "check_modality", "dicom_modality"]

LABELS = {f"anomaly_{level.name.lower()}": int(level) for level in SeverityLevel}
"""Names of the label's values."""

MODEL = "model.pt"

HEATMAP_FILE = "heatmap_file"
"""Key of a result's parameters: the map to be stored, a file that belongs to whoever gets it."""

_SCORES = ("verdict", "axis", "slices", "not_scored_slices", "thresholds", "score_rule")
"""Which of a study's scores are sent; the rest name files of the server."""


def _coded(code: Code) -> dict[str, str]:
    """Return a code as dcmqi takes it."""
    return {
        "CodeValue": code.value,
        "CodingSchemeDesignator": code.scheme_designator,
        "CodeMeaning": code.meaning,
    }


def label_info(
    model: str, levels: SeverityThresholds, found: Sequence[int]
) -> list[dict[str, Any]]:
    """Return what MONAI Label's DICOM SEG says of each label value, in the order of the values."""
    infos = []
    for name, value in LABELS.items():
        if value not in found:
            continue
        colour = list(SEVERITY_COLOURS[SeverityLevel(value)])
        above = getattr(levels, SeverityLevel(value).name.lower())
        attribute = {
            "labelID": value,
            "SegmentLabel": name,
            "SegmentDescription": f"Anomaly map from {above:.3g} on",
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": model,
            "SegmentedPropertyCategoryCodeSequence": _coded(FINDING_CATEGORY),
            "SegmentedPropertyTypeCodeSequence": _coded(FINDING),
            "recommendedDisplayRGBValue": colour,
        }
        infos.append(
            {"name": name, "model_name": model, "color": colour, "segmentAttribute": attribute}
        )
    return infos


def dicom_modality(modality: str) -> str:
    """Return DICOM's code of a modality in a bundle's metadata."""
    return {"OCT": "OPT"}.get(modality, modality)


def check_modality(found: str | None, wanted: str, study: str) -> None:
    """Refuse a study whose DICOM modality is known and is not the model's.

    Raises:
        HTTPException: 422.
    """
    if found and found != wanted:
        raise HTTPException(
            422, f"{study} is of modality {found}; this model takes {wanted}. Choose another model."
        )


class AnomalyInferTask(InferTask):
    """Give MONAI Label's clients a bundle's anomaly maps.

    A request goes through :meth:`multiad_med.AnomalyDetector.predict`. The answer's image is a label of
    the severity levels, or the float32 map (:class:`ResultType`); its parameters have ``anomaly_score``,
    ``p_value``, ``anomalous`` (null where there is no verdict), ``levels``, the ``verdict``, thresholds
    and slice scores of :func:`multiad_med.inference.study_scores`, and ``label_info``.

    Models stay in memory; requests in several threads share nothing but them.

    Args:
        path: folder of the bundle, whose ``configs/inference.json`` may have been edited.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        metadata = _read(self.path / "configs" / "metadata.json")
        super().__init__(
            InferType.SEGMENTATION, LABELS, dimension=3, description=metadata["description"]
        )
        self.version = metadata["version"]
        inputs = metadata["network_data_format"]["inputs"]["image"]
        self.modality = dicom_modality(inputs["modality"])
        self._lock = threading.Lock()
        self._detectors: dict[tuple[str, str], tuple[int, AnomalyDetector]] = {}

    def is_valid(self) -> bool:
        """Return whether the bundle has a model."""
        return (self.path / "models" / MODEL).is_file()

    def config(self) -> dict[str, Any]:
        """Return what clients show in their options."""
        models = sorted((p.name for p in (self.path / "models").glob("*.pt")), key=len)
        return {"device": device_list(), "model_filename": models, **InferOptions().displayed}

    def info(self) -> dict[str, Any]:
        """Return what clients are told; a request for DICOM SEG has to bring the ``label_info``."""
        infos = label_info(self.path.name, InferOptions().levels, list(LABELS.values()))
        return {**super().info(), "version": self.version, "label_info": infos}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Run one request; return the image's file and the parameters.

        Raises:
            HTTPException: 400 on a wrong option, 404 on an unknown model file, 422 on another modality.
            MultiADError: when the study cannot be read, or the model does not fit the bundle.
        """
        start = time.monotonic()
        options = InferOptions.of(request)
        detector = self._detector(
            check_device(request.get("device")), request.get("model_filename")
        )
        image = Path(request["image"])
        check_modality(_modality(image), self.modality, "The study")
        result = detector.predict(image, organ=request.get("organ"))
        label = severity_levels(result.map, options.levels)
        infos = label_info(self.path.name, options.levels, np.unique(label).tolist())
        parameters = {
            "anomaly_score": result.score,
            "anomalous": result.anomalous,
            "p_value": result.p_value,
            "levels": {
                name: getattr(options.levels, SeverityLevel(v).name.lower())
                for name, v in LABELS.items()
            },
            **{name: result.scores[name] for name in _SCORES},
            "label_info": infos,
            "label_names": LABELS,
        }
        if options.heatmap:
            parameters[HEATMAP_FILE] = _write(result, None, ".nii.gz")
        file = _write(
            result, label if options.result is ResultType.LABEL else None, options.extension
        )
        parameters["latencies"] = {"total": round(time.monotonic() - start, 2)}
        return file, parameters

    def _detector(self, device: str, filename: Any) -> AnomalyDetector:
        """Return the detector of a model file, opened again when the file has changed."""
        name = filename if isinstance(filename, str) else MODEL
        path = self.path / "models" / check_name(name, "model_filename")
        if not path.is_file():
            raise HTTPException(404, f"There is no model file {name!r} for {self.path.name}.")
        with self._lock:
            changed = path.stat().st_mtime_ns
            opened, detector = self._detectors.get((device, name), (None, None))
            if detector is None or opened != changed:
                detector = AnomalyDetector.load(
                    path, device=device, bundle=self.path.name, **self._settings()
                )
                self._detectors[device, name] = changed, detector
        return detector

    def _settings(self) -> dict[str, Any]:
        """Return what was edited in the app's copy of the bundle's config."""
        edited, shipped = (
            _read(self.path / "configs" / "inference.json"),
            read_config(self.path.name, "inference.json"),
        )
        return {name: value for name, value in edited.items() if shipped.get(name) != value}


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _modality(image: Path) -> str | None:
    """Return DICOM's modality of a study; None where it is not DICOM."""
    files = image_files(image) if image.is_dir() else [image]
    header = read_header(files[0]) if files else None
    return None if header is None else text(header, "Modality")


def _write(result: Result, label: np.ndarray | None, extension: str) -> str:
    """Write a label on the map's grid, or the map itself, into a temporary file."""
    handle, path = tempfile.mkstemp(suffix=extension)
    os.close(handle)
    if label is None and extension == "".join(result.map_file.suffixes[-2:]):
        shutil.copyfile(result.map_file, path)
        return path
    image = nib.Nifti1Image.from_filename(result.map_file)
    if label is not None:
        image = nib.Nifti1Image(label, image.affine, image.header, dtype=label.dtype)
    if extension.startswith(".nii"):
        save_nifti(image, path)
        return path
    with tempfile.TemporaryDirectory() as folder:
        nifti = str(Path(folder) / "image.nii")
        nib.save(image, nifti)
        SimpleITK.WriteImage(SimpleITK.ReadImage(nifti), path, useCompression=True)
    return path
