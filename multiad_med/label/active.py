"""Which study to look at next, by score; scores of studies that have none; many studies at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.utils.others.generic import remove_file

__all__ = ["AnomalyScoring", "MostAnomalous", "PatientBatchInfer", "record_score", "stored_score"]

_SCORES = "anomaly_scores"

_logger = logging.getLogger(__name__)

Infer = Callable[..., dict[str, Any]]
"""``MONAILabelApp.infer``."""


def record_score(datastore: Datastore, study: str, *, model: str, score: float) -> None:
    """Keep a study's score in its information in the datastore."""
    scores = datastore.get_image_info(study).get(_SCORES, {})
    datastore.update_image_info(study, {_SCORES: {**scores, model: score}})


def stored_score(datastore: Datastore, study: str, *, model: str | None = None) -> float | None:
    """Return a study's score by a model, or its highest by any; none where there is none."""
    scores: dict[str, float] = datastore.get_image_info(study).get(_SCORES, {})
    if model is not None:
        return scores.get(model)
    return max(scores.values(), default=None)


class MostAnomalous(Strategy):
    """Choose the study without a final label that has the highest score; those without score are last.

    A request may name the ``model`` whose scores count; else the highest of any model counts.
    """

    def __init__(self) -> None:
        super().__init__("Study with the highest anomaly score")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return ``id`` and ``anomaly_score`` of the next study; None when all are labelled."""
        scores = {
            study: stored_score(datastore, study, model=request.get("model"))
            for study in sorted(datastore.get_unlabeled_images())
        }
        if not scores:
            return None
        study, score = max(scores.items(), key=lambda item: -1.0 if item[1] is None else item[1])
        return {"id": study, "anomaly_score": score}


class AnomalyScoring(ScoringMethod):
    """Score the studies that have neither a final label nor a score; save nothing else.

    Args:
        infer: the app's inference.
        models: names of its models.
    """

    def __init__(self, infer: Infer, models: list[str]) -> None:
        super().__init__("Anomaly score of each study, by inference")
        self.infer = infer
        self.models = models

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score the studies; return the new scores by study, or the reason why there is none.

        Raises:
            HTTPException: 400 when the app has several models and none is named.
        """
        model = request.get("model") or (self.models[0] if len(self.models) == 1 else None)
        if model is None:
            raise HTTPException(400, f"Name a model whose scores are wanted: {self.models}.")
        result: dict[str, Any] = {}
        for study in sorted(datastore.get_unlabeled_images()):
            if stored_score(datastore, study, model=model) is None:
                try:
                    made = self.infer({"model": model, "image": study}, datastore)
                    remove_file(made["file"])
                    result[study] = made["params"]["anomaly_score"]
                except HTTPException as error:
                    _logger.warning("%s", error.detail)
                    result[study] = error.detail
        return result


class PatientBatchInfer(BatchInferTask):
    """Run MONAI Label's batch inference, also without a GPU; a bad study does not stop the others."""

    def __call__(
        self, request: dict[str, Any], datastore: Datastore, infer: Infer
    ) -> dict[str, Any]:
        """Infer; return by study what ``infer`` returns, or ``error``."""

        def one(study: dict[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return infer(study, store)
            except HTTPException as error:
                _logger.warning("%s", error.detail)
                return {"error": error.detail}

        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False}
        result: dict[str, Any] = super().__call__(request, datastore, one)
        return result
