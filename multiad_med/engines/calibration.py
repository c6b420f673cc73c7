"""Calibration on held-out normal images: fusion statistics, then thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from multiad_med.engines.distributed import gathered
from multiad_med.networks import FusionMode, MultiAD, cosine_distance_maps
from multiad_med.scoring import (
    LargestValues,
    largest_in_foreground,
    threshold_at_false_positive_rate,
)

__all__ = ["CalibrationHandler", "calibrate"]

_QUANTILES = (0.9, 0.995)


def values_inside(maps: Tensor, foreground: Tensor | None) -> Tensor:
    """Values of maps ``(B, 1, h, w)`` at locations that are foreground ``(B, 1, H, W)`` by half or more.

    Where the foreground is too small for that, its best covered locations count.
    """
    if foreground is None:
        return maps.flatten()
    covered = adaptive_avg_pool2d(foreground.float(), (maps.shape[2], maps.shape[3]))
    needed = covered.amax(dim=(1, 2, 3), keepdim=True).clamp(max=0.5)
    return maps[(covered > 0) & (covered >= needed)]


class LevelStatistics:
    """Mean and deviation, or two quantiles, of one stage's distances on normal images."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def update(self, values: Tensor) -> None:
        self.values.append(values.detach().float().cpu())

    def shift_and_scale(
        self, mode: FusionMode, *, device: str | torch.device = "cpu"
    ) -> tuple[float, float]:
        values = gathered(torch.cat([torch.empty(0), *self.values]), device=device)
        if mode is FusionMode.QUANTILE:
            low, high = (
                float(values.kthvalue(max(1, math.ceil(q * values.numel()))).values)
                for q in _QUANTILES
            )
            return low, high - low
        return float(values.double().mean()), float(values.double().std())


@torch.no_grad()
def calibrate(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    device: str | torch.device = "cpu",
    pixel_false_positive_rate: float = 0.01,
    image_false_positive_rate: float = 0.05,
    score_fraction: float = 0.0,
) -> None:
    """Set the network's fusion statistics and thresholds from held-out normal images.

    The first pass over the images sets each stage's statistics over foreground locations (Psi,
    Eq. 14). The second sets the pixel threshold, so that ``pixel_false_positive_rate`` of the normal
    foreground pixels reach 0.5 in the calibrated map, and the image threshold on the scores of
    normal images. Both, with their rates and the score's rule, live in the network's state dict.

    In a process group each process passes over its share of the images, and all get the same values.

    Args:
        network: changed in place.
        batches: iterated twice; ``image (B, C, H, W)`` in [0, 1] and, optionally, ``foreground``
            ``(B, 1, H, W)``. Normal images only, of subjects that were not trained on.
        device: where the network is.
        pixel_false_positive_rate: fraction of normal foreground pixels at or above the threshold.
        image_false_positive_rate: fraction of normal images at or above the image threshold.
        score_fraction: see :func:`multiad_med.scoring.image_scores`; 0 is the maximum.

    Raises:
        ValueError: when there are no images, no foreground, a rate is not in (0, 1), or a map is
            constant on all of them.
    """
    for name, rate in (
        ("pixel_false_positive_rate", pixel_false_positive_rate),
        ("image_false_positive_rate", image_false_positive_rate),
    ):
        if not 0 < rate < 1:
            raise ValueError(f"{name} must lie in (0, 1), got {rate}.")
    network.eval()

    def images() -> Iterable[tuple[Tensor, Tensor | None]]:
        for batch in batches:
            foreground = batch.get("foreground")
            yield (
                torch.as_tensor(batch[CommonKeys.IMAGE]).as_subclass(Tensor).to(device),
                None if foreground is None else torch.as_tensor(foreground).to(device),
            )

    levels = [LevelStatistics() for _ in network.stages]
    pixels = 0
    for image, foreground in images():
        maps = cosine_distance_maps(*network.features(image))
        for level, level_map in zip(levels, maps, strict=True):
            level.update(values_inside(level_map, foreground))
        pixels += int((foreground > 0).sum()) if foreground is not None else image[:, :1].numel()
    pixels = int(gathered(torch.tensor([pixels]), device=device).sum())
    if pixels == 0:
        raise ValueError(
            "Calibration needs held-out normal images with foreground, and got none: add subjects to "
            "the datalist's validation section."
        )
    if network.fusion.standardises:
        statistics = [level.shift_and_scale(network.fusion.mode, device=device) for level in levels]
        network.fusion.set_statistics([s for s, _ in statistics], [s for _, s in statistics])

    network.pixel_threshold.fill_(1.0)
    largest = LargestValues(math.floor(pixel_false_positive_rate * pixels) + 1)
    peaks: list[Tensor] = []
    for image, foreground in images():
        raw = network.raw_map(image)
        largest.update(raw if foreground is None else raw[foreground > 0])
        peaks += largest_in_foreground(raw, foreground, fraction=score_fraction)
    values = gathered(largest.values, device=device).sort(descending=True).values
    threshold = threshold_at_false_positive_rate(
        values[: largest.count], pixels, pixel_false_positive_rate
    )
    if threshold <= 0:
        raise ValueError(
            "The anomaly maps are 0 on all held-out normal images; train longer first."
        )
    network.pixel_threshold.fill_(threshold)
    own = [(p / (p + threshold)).mean().reshape(1).cpu() for p in peaks if p.numel()]
    scores = gathered(torch.cat([torch.empty(0), *own]), device=device)
    network.image_threshold.fill_(
        threshold_at_false_positive_rate(
            scores.sort(descending=True).values, scores.numel(), image_false_positive_rate
        )
    )
    network.pixel_false_positive_rate.fill_(pixel_false_positive_rate)
    network.image_false_positive_rate.fill_(image_false_positive_rate)
    network.score_fraction.fill_(score_fraction)
    network.calibrated.fill_(True)


class CalibrationHandler:
    """Calibrates the network when training has completed.

    Attach it before the handler that saves the final model.

    Args:
        network: the network that was trained.
        batches: see :func:`calibrate`.
        kwargs: further arguments of :func:`calibrate`.
    """

    def __init__(self, network: MultiAD, batches: Iterable[dict[str, Any]], **kwargs: Any) -> None:
        self.network = network
        self.batches = batches
        self.kwargs = kwargs

    def attach(self, engine: Engine) -> None:
        """Register for the end of training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Calibrate."""
        calibrate(self.network, self.batches, **self.kwargs)
