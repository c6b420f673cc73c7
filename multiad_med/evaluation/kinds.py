"""Image metrics of each kind of anomaly against the normal images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multiad_med.evaluation.evaluation import finite_or_none
from multiad_med.metrics import auroc

__all__ = ["kind_metrics"]


def kind_metrics(
    studies: Sequence[Mapping[str, Any]], scores: Sequence[Tensor], abnormal: Sequence[Tensor]
) -> dict[str, dict[str, float | None]]:
    """Return the image AUROC of each kind of anomaly, and the mean over kinds.

    Of MVTec LOCO the kinds are logical and structural anomalies, and the mean is its official figure;
    of a classification data set they are the anomalous classes. Each category is compared with its own
    normal images, and a kind's figure is the mean over the categories that have it.

    Args:
        studies: rows with ``category`` and ``kind``.
        scores, abnormal: of each study's slices.

    Returns:
        By kind, and under ``mean``, ``image_auroc``; {} for fewer than two kinds.
    """
    normal: dict[str, list[Tensor]] = defaultdict(list)
    anomalous: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for row, own, wrong in zip(studies, scores, abnormal, strict=True):
        normal[row["category"]].append(own[~wrong])
        if row["kind"] and wrong.any():
            anomalous[row["kind"]][row["category"]].append(own[wrong])
    if len(anomalous) < 2:
        return {}
    found = {
        kind: _mean(
            [
                _auroc(torch.cat(normal[category]), torch.cat(own))
                for category, own in by_category.items()
            ]
        )
        for kind, by_category in sorted(anomalous.items())
    }
    found["mean"] = _mean(list(found.values()))
    return {kind: {"image_auroc": value} for kind, value in found.items()}


def _auroc(normal: Tensor, anomalous: Tensor) -> float | None:
    labels = torch.cat([torch.zeros(len(normal)), torch.ones(len(anomalous))])
    return finite_or_none(auroc(torch.cat([normal, anomalous]), labels))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
