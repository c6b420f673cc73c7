"""Metrics of a run over labelled studies, written as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from multiad_med.io import write_json
from multiad_med.metrics import Ranking, aupro

__all__ = ["StudyMetricsHandler", "dice"]


def dice(prediction: Tensor, truth: Tensor) -> float:
    """Dice overlap of two masks; NaN when both are empty."""
    total = int(prediction.sum() + truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else math.nan


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


class StudyMetricsHandler:
    """Computes image- and pixel-level metrics over the studies of an evaluator.

    An image is an axial slice that was scored (the occupied ones); pixels are all those of such
    slices, on the source's resolution. ``metrics.json`` gets ``image_auroc``, ``image_ap``,
    ``pixel_auroc``, ``pixel_ap``, ``aupro`` (limit 0.3), ``best_dice`` (an upper bound, its threshold
    being chosen on these very studies), ``dice`` (at the threshold set on held-out normals), and
    per study ``volume_score`` and ``dice``. A metric that one missing class leaves undefined is
    ``null``.

    The evaluator's batches must have ``label`` and its output ``pred``, ``(1, X, Y, Z)`` in RAS+ each,
    and ``slice_scores (Z,)``, NaN where skipped.

    Args:
        output_dir: folder for ``metrics.json``.
        map_key, label_key: where the calibrated map and the lesion mask are.
    """

    def __init__(
        self, output_dir: str | Path, *, map_key: str = "pred", label_key: str = "label"
    ) -> None:
        self.output_dir = Path(output_dir)
        self.map_key = map_key
        self.label_key = label_key

    def attach(self, engine: Engine) -> None:
        """Register for the start, every study, and the end."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Engine) -> None:
        self._maps: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._studies: list[dict[str, Any]] = []

    def _collect(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            maps, label = (
                torch.as_tensor(volume).as_subclass(Tensor)[0].cpu()
                for volume in (output[self.map_key], item[self.label_key])
            )
            scores = output["slice_scores"]
            scored = ~scores.isnan()
            maps, label = (v[..., scored].permute(2, 0, 1) for v in (maps, label > 0))
            self._maps.append(maps)
            self._masks.append(label)
            self._scores.append(scores[scored])
            self._studies.append(
                {
                    "subject": str(item.get("subject", "")),
                    "volume_score": float(output["volume_score"]),
                    "lesion_voxels": int(label.sum()),
                    "dice": _finite_or_none(dice(maps >= 0.5, label)),
                }
            )

    def _finish(self, engine: Engine) -> None:
        if not self._studies:
            return
        slices = [m for study in self._maps for m in study]
        masks = [m for study in self._masks for m in study]
        labels = torch.stack([m.any() for m in masks])
        images = Ranking(torch.cat(self._scores), labels)
        flat_maps = torch.cat([m.flatten() for m in slices])
        flat_masks = torch.cat([m.flatten() for m in masks])
        pixels = Ranking(flat_maps, flat_masks)
        metrics = {
            "image_auroc": images.auroc,
            "image_ap": images.average_precision,
            "pixel_auroc": pixels.auroc,
            "pixel_ap": pixels.average_precision,
            "aupro": aupro(slices, masks),
            "best_dice": pixels.f1_max,
            "dice": dice(flat_maps >= 0.5, flat_masks),
        }
        engine.state.metrics.update(metrics)
        write_json(
            self.output_dir / "metrics.json",
            {name: _finite_or_none(value) for name, value in metrics.items()}
            | {
                "images": len(labels),
                "anomalous_images": int(labels.sum()),
                "volumes": self._studies,
            },
        )
