"""The app that MONAI Label serves: bundles in its folder ``model``, checked requests, clear answers."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

import multiad_med
from multiad_med.data.study_errors import FailureKind, failure_reason
from multiad_med.label.active import AnomalyScoring, MostAnomalous, PatientBatchInfer, record_score
from multiad_med.label.background import end_with_server
from multiad_med.label.datastores import (
    HEATMAP_TAG,
    CheckedSessions,
    FolderDatastore,
    SeriesDatastore,
    organ_mask,
)
from multiad_med.label.inference_task import (
    HEATMAP_FILE,
    AnomalyInferTask,
    check_modality,
    dicom_modality,
)
from multiad_med.label.server_options import check_tag
from multiad_med.label.training_task import NormalOnlyTrainTask
from multiad_med.serving.answers import watch_answers
from multiad_med.utils.errors import InputError

__all__ = ["MultiADApp"]

_logger = logging.getLogger(__name__)


class MultiADApp(MONAILabelApp):
    """Serve anomaly maps to MONAI Label's clients.

    Every bundle in the folder ``model`` is served, or those that ``conf`` names as ``models``, separated
    by commas. Nothing is downloaded.

    Args:
        app_dir: folder of the app.
        studies: folder of studies, or URL of a DICOMweb server.
        conf: configuration of the server's command line.

    Raises:
        InputError: when a bundle is named that is not there, or there is none.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        end_with_server()
        folder = Path(app_dir) / "model"
        there = sorted(p.parents[1].name for p in folder.glob("*/configs/inference.json"))
        names = [name for name in conf.get("models", "").split(",") if name] or there
        if unknown := sorted(set(names) - set(there)):
            raise InputError(f"{folder} has no bundles {unknown}; it has {there}.")
        if not names:
            raise InputError(f"{folder} has no bundle; `multiad label init` puts them there.")
        self.bundles = {name: folder / name for name in names}
        self.modalities = {name: _modality(path) for name, path in self.bundles.items()}
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Multi-AD Med",
            description="Anomaly maps by models of what is normal. Not for diagnostic use.",
            version=multiad_med.__version__,
        )
        # Scoring runs inference on each new study, which starting a server should not set off.
        self._auto_update_scoring = False

    def init_infers(self) -> dict[str, AnomalyInferTask]:
        """Return one task for each bundle that has a model."""
        tasks = {name: AnomalyInferTask(path) for name, path in self.bundles.items()}
        return {name: task for name, task in tasks.items() if task.is_valid()}

    def init_trainers(self) -> dict[str, NormalOnlyTrainTask]:
        """Return one task for each bundle."""
        return {
            name: NormalOnlyTrainTask(str(path), self.conf) for name, path in self.bundles.items()
        }

    def init_strategies(self) -> dict[str, Any]:
        """Return ``most_anomalous``, and MONAI Label's ``random`` and ``first``."""
        return {"most_anomalous": MostAnomalous(), "random": Random(), "first": First()}

    def init_scoring_methods(self) -> dict[str, Any]:
        """``anomaly``."""
        return {"anomaly": AnomalyScoring(self.infer, list(self._infers))}

    def init_batch_infer(self) -> PatientBatchInfer:
        """Return batch inference that goes on after a bad study."""
        return PatientBatchInfer()

    def init_datastore(self) -> Datastore:
        """Return a folder, or a DICOMweb server, with checked names."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return FolderDatastore(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _init_dicomweb_datastore(self) -> SeriesDatastore:
        plain: DICOMWebDatastore = super()._init_dicomweb_datastore()  # which makes the client
        plain._observer.stop()
        watch_answers(plain._client)
        return SeriesDatastore(
            modalities=sorted(set(self.modalities.values())),
            client=plain._client,
            search_filter=plain._search_filter,
            cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
        )

    def _download_dcmqi_tools(self) -> None:
        if shutil.which("itkimage2segimage") is None:
            _logger.warning(
                "itkimage2segimage is not on PATH: no DICOM SEG can be written. It comes with the "
                "package dcmqi (`pip install dcmqi`)."
            )

    def _load_sessions(self, load: bool = False) -> CheckedSessions | None:
        if not load:
            return None
        return CheckedSessions(
            settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY
        )

    def bundle_path(self, model: str | None) -> str | None:
        """Return the folder of a model's bundle; MONAI Label asks before any task in the background.

        Raises:
            HTTPException: 404 on an unknown model.
        """
        if model is None:
            return None
        self._check_known(model, self.bundles, "model")
        return str(self.bundles[model])

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Run inference on a study of the datastore or on an upload, and keep the result.

        Raises:
            HTTPException: 404 on an unknown model or study, 422 on a study of another modality or one
                that cannot be read, 400 on a wrong option, 500 on a fault of the program or the host.
        """
        datastore = datastore or self.datastore()
        model = str(request.get("model"))
        self._check_known(model, self._infers, "model")
        tag = check_tag(request.get("label_tag") or DefaultLabelTag.ORIGINAL)
        image = str(request.get("image") or "")
        study = None if self._is_upload(image) else image
        request = {k: v for k, v in request.items() if k != "organ"}
        with _told(study or "The upload"):
            if study is not None:
                request["image"] = datastore.get_image_uri(study)
                info = datastore.get_image_info(study)
                check_modality(info.get("Modality"), self.modalities[model], study)
                if mask := organ_mask(datastore, study):
                    request["organ"] = mask
            result: dict[str, Any] = super().infer({**request, "save_label": False}, datastore)
        parameters = result["params"]
        heatmap = parameters.pop(HEATMAP_FILE, None)
        about = {"model": model, "params": parameters}
        try:
            if study is not None:
                record_score(datastore, study, model=model, score=parameters["anomaly_score"])
                if heatmap:
                    datastore.save_label(study, heatmap, HEATMAP_TAG, dict(about))
                    parameters["heatmap"] = HEATMAP_TAG
                if request.get("save_label"):
                    result["label"] = datastore.save_label(study, result["file"], tag, dict(about))
        finally:
            if heatmap:
                Path(heatmap).unlink()
        return {**result, "tag": tag}

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one training in this process; see :class:`NormalOnlyTrainTask`.

        Raises:
            HTTPException: 404 on an unknown model, 422 on what a user can mend, 500 on a fault of the
                program or the host, and those of the task.
        """
        self._check_known(request.get("model"), self._trainers, "model")
        with _told("The training"):
            result: dict[str, Any] = super().train(request)
        return result

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the study to look at next.

        Raises:
            HTTPException: 404 on an unknown strategy.
        """
        self._check_known(request.get("strategy"), self._strategies, "strategy")
        result: dict[str, Any] = super().next_sample(request)
        return result

    def scoring(
        self, request: dict[str, Any], datastore: Datastore | None = None
    ) -> dict[str, Any]:
        """Run a scoring method.

        Raises:
            HTTPException: 404 on an unknown method.
        """
        self._check_known(request.get("method"), self._scoring_methods, "scoring method")
        result: dict[str, Any] = super().scoring(request, datastore)
        return result

    def _check_known(self, name: str | None, known: dict[str, Any], what: str) -> None:
        if name in known:
            return
        if what == "model" and name in self.bundles:
            raise HTTPException(
                404, f"The bundle {name} has no model yet: train one, and start the server again."
            )
        raise HTTPException(404, f"There is no {what} {name!r}; there are {sorted(known)}.")

    def _is_upload(self, image: str) -> bool:
        """Return whether an image is a file that this server has saved for a client."""
        path = Path(image)
        if not path.is_absolute() or not path.exists():
            return False
        path = path.resolve()
        sessions = self.sessions()
        if sessions is not None and path.is_relative_to(Path(sessions.store_path).resolve()):
            return True
        folder = Path(tempfile.gettempdir()).resolve()
        return path.parent == folder and path.name.startswith(tempfile.gettempprefix())


def _modality(bundle: Path) -> str:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return dicom_modality(metadata["network_data_format"]["inputs"]["image"]["modality"])


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell a client why something failed: 422 if the client can mend it, else 500."""
    try:
        yield
    except HTTPException:
        raise
    except Exception as error:  # the barrier between requests
        reason, kind = failure_reason(error)
        told = reason if what in reason else f"{what}: {reason}"
        if kind is FailureKind.STUDY:
            _logger.warning("%s", told)
            raise HTTPException(422, told) from error
        _logger.exception("%s", told)
        raise HTTPException(500, told) from error
