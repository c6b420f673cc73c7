"""Calibration on held-out normal images: fusion statistics, then thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from multiad_med.engines.distributed import gathered, gathered_items
from multiad_med.networks import FusionMode, MultiAD, cosine_distance_maps
from multiad_med.scoring import (
    LargestValues,
    largest_in_foreground,
    threshold_at_false_positive_rate,
)
from multiad_med.utils.errors import InputError

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
    group: str | None = None,
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
        group: key of the batches that tells which images are parts of one, such as ``subject`` for
            the tiles of a picture; its score is the highest of theirs.

    Raises:
        InputError: when there are no images, no foreground, a rate is not in (0, 1), or a map is
            constant on all of them.
    """
    for name, rate in (
        ("pixel_false_positive_rate", pixel_false_positive_rate),
        ("image_false_positive_rate", image_false_positive_rate),
    ):
        if not 0 < rate < 1:
            raise InputError(f"{name} must lie in (0, 1), got {rate}.")
    network.eval()

    def images() -> Iterable[tuple[Tensor, Tensor | None, Sequence[Any]]]:
        for batch in batches:
            image = torch.as_tensor(batch[CommonKeys.IMAGE]).as_subclass(Tensor).to(device)
            foreground = batch.get("foreground")
            yield (
                image,
                None if foreground is None else torch.as_tensor(foreground).to(device),
                [uuid4() for _ in image] if group is None else batch[group],
            )

    levels = [LevelStatistics() for _ in network.stages]
    pixels = 0
    for image, foreground, _ in images():
        maps = cosine_distance_maps(*network.features(image))
        for level, level_map in zip(levels, maps, strict=True):
            level.update(values_inside(level_map, foreground))
        pixels += int((foreground > 0).sum()) if foreground is not None else image[:, :1].numel()
    pixels = int(gathered(torch.tensor([pixels]), device=device).sum())
    if pixels == 0:
        raise InputError(
            "Calibration needs held-out normal images with foreground, and got none: add subjects to "
            "the datalist's validation section."
        )
    if network.fusion.standardises:
        statistics = [level.shift_and_scale(network.fusion.mode, device=device) for level in levels]
        network.fusion.set_statistics([s for s, _ in statistics], [s for _, s in statistics])

    network.pixel_threshold.fill_(1.0)
    largest = LargestValues(math.floor(pixel_false_positive_rate * pixels) + 1)
    peaks: list[tuple[Any, Tensor]] = []
    for image, foreground, names in images():
        raw = network.raw_map(image)
        largest.update(raw if foreground is None else raw[foreground > 0])
        of_images = largest_in_foreground(raw, foreground, fraction=score_fraction)
        peaks += zip(names, of_images, strict=True)
    values = gathered(largest.values, device=device).sort(descending=True).values
    threshold = threshold_at_false_positive_rate(
        values[: largest.count], pixels, pixel_false_positive_rate
    )
    if threshold <= 0:
        raise InputError(
            "The anomaly maps are 0 on all held-out normal images; train longer first."
        )
    network.pixel_threshold.fill_(threshold)
    own = [(n, float((p / (p + threshold)).mean())) for n, p in peaks if p.numel()]
    highest: dict[Any, float] = {}
    for name, score in gathered_items(own):
        highest[name] = max(score, highest.get(name, 0.0))
    scores = torch.tensor(list(highest.values()))
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
