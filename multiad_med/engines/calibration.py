"""Calibration on held-out normal images: fusion statistics, pixel threshold, normal scores."""

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
    Level,
    NormalScores,
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


class UnitScores:
    """The highest score of each unit of a level, over the images that are parts of it."""

    def __init__(self) -> None:
        self.highest: dict[Any, float] = {}

    def update(self, names: Sequence[Any], scores: Sequence[float]) -> None:
        for name, score in zip(names, scores, strict=True):
            self.highest[name] = max(score, self.highest.get(name, 0.0))

    def gathered(self) -> tuple[float, ...]:
        """Those of all processes."""
        everywhere = UnitScores()
        for name, score in gathered_items(list(self.highest.items())):
            everywhere.update([name], [score])
        return tuple(everywhere.highest.values())


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 < rate < 1:
            raise InputError(f"{name} must lie in (0, 1), got {rate}.")


@torch.no_grad()
def calibrate(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    threshold_batches: Iterable[dict[str, Any]] | None = None,
    device: str | torch.device = "cpu",
    pixel_false_positive_rate: float = 0.01,
    image_false_positive_rate: float = 0.05,
    volume_false_positive_rate: float = 0.05,
    score_fraction: float = 0.0,
    group: str | None = None,
    approximate: str = "",
) -> None:
    """Set the network's fusion statistics, pixel threshold and normal scores from held-out normals.

    A pass over ``batches`` sets each stage's statistics over foreground locations (Psi, Eq. 14). A pass
    over ``threshold_batches`` sets the pixel threshold, so that at most ``pixel_false_positive_rate`` of
    the normal foreground pixels reach 0.5 in the calibrated map, and keeps the scores of normal slices,
    volumes (the highest of their slices) and patients (the highest of their volumes), each with its own
    rate: see :class:`multiad_med.scoring.NormalScores`. All of it lives in the network's state dict.

    In a process group each process passes over its share of the images, and all get the same values.

    Args:
        network: changed in place.
        batches: ``image (B, C, H, W)`` in [0, 1] and, optionally, ``foreground (B, 1, H, W)``, ``study``
            and ``subject``, lists of names. Normal images only, of subjects that were not trained on.
            Without ``study``, or ``subject``, there is no verdict of volumes, or patients.
        threshold_batches: of the subjects that set thresholds, iterated twice; those of ``batches``
            without it, and the p-values are then approximate.
        device: where the network is.
        pixel_false_positive_rate: fraction of normal foreground pixels at or above the threshold.
        image_false_positive_rate: fraction of normal slices, or images, that are called anomalous.
        volume_false_positive_rate: fraction of normal volumes, and of normal patients.
        score_fraction: see :func:`multiad_med.scoring.image_scores`; 0 is the maximum.
        group: key of the batches that tells which images are parts of one, such as ``subject`` for
            the tiles of an image; its score is the highest of theirs.
        approximate: why the p-values are approximate, where ``threshold_batches`` does not tell.

    Raises:
        InputError: when there are no images, no foreground, a rate is not in (0, 1), or a map is
            constant on all of them.
    """
    _check_rates(
        pixel_false_positive_rate=pixel_false_positive_rate,
        image_false_positive_rate=image_false_positive_rate,
        volume_false_positive_rate=volume_false_positive_rate,
    )
    network.eval()
    if threshold_batches is None:
        threshold_batches = batches
        approximate = (
            approximate or "the subjects that set the thresholds set the fusion's scale too"
        )

    def images(
        of: Iterable[dict[str, Any]],
    ) -> Iterable[tuple[Tensor, Tensor | None, dict[str, Any]]]:
        for batch in of:
            image = torch.as_tensor(batch[CommonKeys.IMAGE]).as_subclass(Tensor).to(device)
            foreground = batch.get("foreground")
            yield (
                image,
                None if foreground is None else torch.as_tensor(foreground).to(device),
                batch,
            )

    def pixels_of(image: Tensor, foreground: Tensor | None) -> int:
        return int((foreground > 0).sum()) if foreground is not None else image[:, :1].numel()

    def check_any(pixels: int) -> int:
        everywhere = int(gathered(torch.tensor([pixels]), device=device).sum())
        if everywhere == 0:
            raise InputError(
                "Calibration needs held-out normal images with foreground, and got none: add subjects "
                "to the datalist's validation section."
            )
        return everywhere

    levels = [LevelStatistics() for _ in network.stages]
    pixels = 0
    for image, foreground, _ in images(batches):
        maps = cosine_distance_maps(*network.features(image))
        for level, level_map in zip(levels, maps, strict=True):
            level.update(values_inside(level_map, foreground))
        pixels += pixels_of(image, foreground)
    check_any(pixels)
    if network.fusion.standardises:
        statistics = [level.shift_and_scale(network.fusion.mode, device=device) for level in levels]
        network.fusion.set_statistics([s for s, _ in statistics], [s for _, s in statistics])

    network.pixel_threshold.fill_(1.0)
    pixels = check_any(sum(pixels_of(i, f) for i, f, _ in images(threshold_batches)))
    largest = LargestValues(math.floor(pixel_false_positive_rate * (pixels + 1)) + 1)
    peaks: list[tuple[dict[Level, Any], Tensor]] = []
    for image, foreground, batch in images(threshold_batches):
        raw = network.raw_map(image)
        largest.update(raw if foreground is None else raw[foreground > 0])
        of_images = largest_in_foreground(raw, foreground, fraction=score_fraction)
        for index, values in enumerate(of_images):
            names: dict[Level, Any] = {
                Level.SLICE: uuid4() if group is None else str(batch[group][index])
            }
            for level, key in ((Level.VOLUME, "study"), (Level.PATIENT, "subject")):
                if key in batch:
                    names[level] = str(batch[key][index])
            if values.numel():
                peaks.append((names, values))
    values = gathered(largest.values, device=device).sort(descending=True).values
    threshold = threshold_at_false_positive_rate(
        values[: largest.count], pixels, pixel_false_positive_rate
    )
    if not values[0] > 0:
        raise InputError(
            "The anomaly maps are 0 on all held-out normal images; train longer first."
        )
    network.pixel_threshold.fill_(threshold)
    for level in Level:
        units = UnitScores()
        for names, peak in peaks:
            if level in names:
                units.update([names[level]], [float((peak / (peak + threshold)).mean())])
        rate = image_false_positive_rate if level is Level.SLICE else volume_false_positive_rate
        network.card.levels[level] = NormalScores(units.gathered(), rate, approximate)
    network.pixel_false_positive_rate.fill_(pixel_false_positive_rate)
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
