"""Inference of a bundle as a task of MONAI Label: bands for viewers, the map itself on request."""

from __future__ import annotations

import copy
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import numpy as np
import SimpleITK
import torch
from fastapi import HTTPException
from monai.data import MetaTensor
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.bundle import BundleInferTask
from pydicom.sr.coding import Code

from multiad_med.io import check_calibrated, study_scores
from multiad_med.io.bands import BAND_COLOURS, Band, BandThresholds, anomaly_bands
from multiad_med.io.dicom_result import FINDING, FINDING_CATEGORY
from multiad_med.label.options import InferOptions, ResultType, check_device, check_name
from multiad_med.networks import MultiAD, open_model

__all__ = ["HEATMAP_FILE", "LABELS", "AnomalyInferTask", "check_modality", "dicom_modality"]

LABELS = {f"anomaly_{band.name.lower()}": int(band) for band in Band}
"""Names of the label's values."""

HEATMAP_FILE = "heatmap_file"
"""Key of a result's parameters: the map to be stored, a file that belongs to whoever gets it."""

_KEYS = ("model", "image", "organ", "description", "logging")
"""What of a request reaches the transforms; of anything else a client could make a path."""


def _coded(code: Code) -> dict[str, str]:
    """A code as dcmqi takes it."""
    return {
        "CodeValue": code.value,
        "CodingSchemeDesignator": code.scheme_designator,
        "CodeMeaning": code.meaning,
    }


def label_info(model: str, bands: BandThresholds, found: Sequence[int]) -> list[dict[str, Any]]:
    """What MONAI Label's DICOM SEG says of each label value, in the order of the values."""
    infos = []
    for name, value in LABELS.items():
        if value not in found:
            continue
        colour = list(BAND_COLOURS[Band(value)])
        above = getattr(bands, Band(value).name.lower())
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
    """DICOM's code of a modality in a bundle's metadata."""
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


class AnomalyInferTask(BundleInferTask):
    """MONAI Label's bundle task for bundles that make anomaly maps.

    The bundle's own preprocessing, inferer and way back to the study's grid are run; what it would
    write is left out. The answer's image is a label of the bands, or the float32 map
    (:class:`ResultType`); its parameters have ``anomaly_score``, ``p_value``, ``anomalous`` (null where
    there is no verdict), ``bands``, the ``verdict``, thresholds and slice scores of
    :func:`multiad_med.io.study_scores`, and ``label_info``.

    Each request has a parsed config of its own, so that requests in several threads share
    nothing but the networks, which are loaded once.

    Args:
        path: folder of the bundle.
        conf: configuration of the app.
    """

    def __init__(self, path: str | Path, conf: dict[str, str]) -> None:
        self._lock = threading.Lock()
        self._request_network: MultiAD | None = None
        self._options = InferOptions()
        self._left_out: list[dict[str, Any]] = []
        super().__init__(
            str(path),
            conf,
            type=InferType.SEGMENTATION,
            extend_load_image=False,
            add_post_restore=False,
            load_strict=True,
        )
        if not self.valid:
            return
        self.labels = LABELS
        self.dimension = 3  # the network's is 2
        metadata = self._load_bundle_config(
            self.bundle_path, os.path.join(self.bundle_path, "configs", "metadata.json")
        )
        inputs = metadata["network_data_format"]["inputs"][self.key_image]
        self.modality = dicom_modality(inputs["modality"])
        self._config.update(self._options.displayed)

    def info(self) -> dict[str, Any]:
        """What clients are told; ``label_info`` is what a request for DICOM SEG has to bring."""
        name = Path(self.bundle_path).name
        infos = label_info(name, self._options.bands, list(LABELS.values()))
        return {**super().info(), "label_info": infos}

    def __call__(
        self, request: Mapping[str, Any], callbacks: Any = None
    ) -> tuple[str | None, dict[str, Any]]:
        """Run one request; file of the image, and parameters.

        Raises:
            HTTPException: 400 on a wrong option, 404 on an unknown model file, 422 on another modality.
            WeightsError: when the model file does not fit the bundle.
            NotCalibratedError: when its training was not finished.
        """
        task = copy.copy(self)
        task._options = InferOptions.of(request)
        device = check_device(request.get("device"))
        path = self._model_file(request.get("model_filename"))
        task._request_network = self._load_network(device, path)
        task.bundle_config = task._request_config(path)
        kept = {key: request[key] for key in _KEYS if key in request}
        result: tuple[str | None, dict[str, Any]] = super(AnomalyInferTask, task).__call__(
            {**kept, "device": device}, callbacks
        )
        return result

    def _request_config(self, model: Path) -> Any:
        """The bundle's config with the loaded network, and without what follows the way back."""
        config = self._load_bundle_config(self.bundle_path, self.bundle_config_path)
        config["ckpt_path"] = str(model)
        steps = config["postprocessing"]["transforms"]
        back = max(i for i, step in enumerate(steps) if step["_target_"] == "Invertd")
        config["postprocessing"]["transforms"], self._left_out = (
            steps[: back + 1],
            steps[back + 1 :],
        )
        config["network"] = self._request_network
        return config

    def _saving(self, name: str) -> dict[str, Any]:
        """The step that ends in ``name`` of those that are left out."""
        found: dict[str, Any] = next(
            s for s in self._left_out if s["_target_"].endswith(f".{name}")
        )
        return found

    def _model_file(self, filename: Any) -> Path:
        name = filename if isinstance(filename, str) else "model.pt"
        path = Path(self.bundle_path) / "models" / check_name(name, "model_filename")
        if not path.is_file():
            raise HTTPException(404, f"There is no model file {name!r} for {path.parents[1].name}.")
        return path

    def _load_network(self, device: str, path: Path) -> MultiAD:
        with self._lock:
            time = path.stat().st_mtime_ns
            made, network = self._networks.get((device, path.name), (None, None))
            if made != time:
                network = open_model(path)
                check_calibrated(network)
                network.to(torch.device(device)).eval()
                self._networks[device, path.name] = time, network
        return network

    def _get_network(self, device: str, data: Any) -> MultiAD | None:
        return self._request_network

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The bundle's preprocessing, with a look at the modality after reading."""
        read, *others = super().pre_transforms(data)
        return [read, self._check_modality, *others]

    def _check_modality(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        check_modality(data[self.key_image].meta.get("modality"), self.modality, "The study")
        return data

    def writer(
        self, data: dict[str, Any], extension: Any = None, dtype: Any = None
    ) -> tuple[str, dict[str, Any]]:
        """Write the answer's image, and the heatmap if it was asked for."""
        options = self._options
        anomaly_map: MetaTensor = data[self.key_pred]
        label = anomaly_bands(np.asarray(anomaly_map.cpu()), options.bands)
        scores = study_scores(
            data["slice_scores"],
            anomaly_map.affine,
            network=self._request_network,  # type: ignore[arg-type]
            oriented=self._saving("SaveScoresd").get("oriented", True),
        )
        infos = label_info(
            Path(self.bundle_path).name, options.bands, [int(v) for v in np.unique(label)]
        )
        parameters = {
            "anomaly_score": scores.pop("volume_score"),
            "anomalous": scores.pop("volume_flagged"),
            "p_value": scores.pop("volume_p_value"),
            "bands": {
                name: getattr(options.bands, Band(v).name.lower()) for name, v in LABELS.items()
            },
            **scores,
            "label_info": infos,
        }
        image = anomaly_map
        if options.result is ResultType.LABEL:
            image = MetaTensor(torch.from_numpy(label), meta=anomaly_map.meta)
        if options.heatmap:
            parameters[HEATMAP_FILE] = self._write(anomaly_map, ".nii.gz", ResultType.HEATMAP)
        return self._write(image, options.extension, options.result), parameters

    def _write(self, image: MetaTensor, extension: str, dtype: str) -> str:
        """Write ``(1, X, Y, Z)`` on the study's grid into a temporary file, by the bundle's writer."""
        writer_class: Any = locate(self._saving("SaveImageMapd")["writer"])
        writer = writer_class(output_dtype=dtype)
        writer.set_data_array(image, channel_dim=0)
        writer.set_metadata(image.meta, resample=False)
        handle, path = tempfile.mkstemp(suffix=extension)
        os.close(handle)
        if extension.startswith(".nii"):
            writer.write(path)
            return path
        with tempfile.TemporaryDirectory() as folder:
            nifti = str(Path(folder) / "image.nii")
            writer.write(nifti)
            SimpleITK.WriteImage(SimpleITK.ReadImage(nifti), path, useCompression=True)
        return path
