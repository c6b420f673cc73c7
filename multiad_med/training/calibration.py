"""Calibration on held-out normal images: fusion statistics, pixel threshold, normal scores."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any
from uuid import uuid4

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from multiad_med.networks import MultiAD, TokenLevels
from multiad_med.networks.experts import Reservoir
from multiad_med.scoring import (
    LargestValues,
    Level,
    NormalScores,
    largest_in_foreground,
    threshold_at_false_positive_rate,
    units_needed,
)
from multiad_med.training.distributed import gathered, gathered_items
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["CalibrationHandler", "calibrate", "score_units", "set_thresholds"]

_logger = logging.getLogger(__name__)

_TOKENS = 50
"""Held-out normal images from which on the hazard of a token of the whole image is no longer rough."""
_LEVEL = 0.01
"""Part of an image's pixels whose mean is the level of its map."""
_DISTANCES = 2**21
"""Distances per stage, drawn from all held-out normal images, that set the fusion's statistics."""


def values_inside(maps: Tensor, foreground: Tensor | None) -> Tensor:
    """Return the values of maps ``(B, 1, h, w)`` where at least half is foreground ``(B, 1, H, W)``.

    Where the foreground is too small for that, its best covered locations count.
    """
    if foreground is None:
        return maps.flatten()
    covered = adaptive_avg_pool2d(foreground.float(), (maps.shape[2], maps.shape[3]))
    needed = covered.amax(dim=(1, 2, 3), keepdim=True).clamp(max=0.5)
    return maps[(covered > 0) & (covered >= needed)]


def images_of(
    batches: Iterable[dict[str, Any]], device: str | torch.device
) -> Iterable[tuple[Tensor, Tensor | None, dict[str, Any]]]:
    """Yield image and foreground (or None) of each batch, on the device, and the batch."""
    for batch in batches:
        image = plain_tensor(batch[CommonKeys.IMAGE]).to(device)
        foreground = batch.get("foreground")
        yield image, None if foreground is None else torch.as_tensor(foreground).to(device), batch


def _fit_fusion(
    network: MultiAD, batches: Iterable[dict[str, Any]], device: str | torch.device
) -> set[str]:
    """Set the fusion's statistics and return the subjects that they come from."""
    samples = [Reservoir(_DISTANCES, columns=1) for _ in network.fusion.levels]
    subjects: set[str] = set()
    pixels = 0
    for image, foreground, batch in images_of(batches, device):
        inside = None if foreground is None else network.on_whole_patches(foreground)
        for sample, distances in zip(samples, network.distances(image), strict=True):
            sample.update(values_inside(distances, inside)[:, None])
        pixels += _pixels(image, foreground)
        subjects.update(map(str, batch.get("subject", ())))
    _check_any(pixels, device)
    network.fusion.fit([gathered(sample.rows(), device=device) for sample in samples])
    return set(gathered_items(sorted(subjects)))


def _fit_alignment(
    network: MultiAD, batches: Iterable[dict[str, Any]], device: str | torch.device
) -> None:
    """Set the levels of held-out normal images by which a network aligns categories."""
    for alignment in network.alignment:
        assert isinstance(alignment, TokenLevels)
        rows, channels = alignment.tokens.shape
        sample = Reservoir(rows, columns=channels + 1)
        for image, foreground, _ in images_of(batches, device):
            maps = network.fused_map(network.distances(image), list(image.shape[2:]))
            joint = maps.sum(dim=1, keepdim=True)
            tokens = alignment.token(network.observed(image)[0])
            largest = largest_in_foreground(joint, foreground, fraction=_LEVEL)
            kept = [index for index, values in enumerate(largest) if values.numel()]
            levels = [largest[index].mean() for index in kept]
            if kept:
                sample.update(torch.cat([tokens[kept], torch.stack(levels)[:, None]], dim=1))
        found = gathered(sample.rows(), device=device)
        alignment.fit(found[:, :-1], found[:, -1])


def _pixels(image: Tensor, foreground: Tensor | None) -> int:
    return image[:, :1].numel() if foreground is None else int((foreground > 0).sum())


def _check_any(pixels: int, device: str | torch.device) -> int:
    everywhere = int(gathered(torch.tensor([pixels]), device=device).sum())
    if everywhere == 0:
        raise InputError(
            "Calibration needs held-out normal images with foreground, and got none: add subjects to "
            "the datalist's validation split."
        )
    return everywhere


Unit = tuple[dict[Level, Any], Tensor]
"""Names of an image's units by level, and the largest values of its map."""


def _units(
    maps: Tensor,
    foreground: Tensor | None,
    batch: dict[str, Any],
    *,
    fraction: float,
    group: str | None,
) -> Iterator[Unit]:
    for index, values in enumerate(largest_in_foreground(maps, foreground, fraction=fraction)):
        part_of = None if group is None else str(batch[group][index])
        names: dict[Level, Any] = {Level.SLICE: part_of or uuid4()}
        for level, key in ((Level.VOLUME, "study"), (Level.PATIENT, "subject")):
            if key in batch:
                names[level] = str(batch[key][index])
        if values.numel():
            yield names, values.cpu()


def _scored(units: Iterable[Unit], threshold: float) -> list[tuple[dict[Level, Any], float]]:
    """Return the units of all processes with their scores in the map calibrated by a threshold."""
    return gathered_items([(names, float((v / (v + threshold)).mean())) for names, v in units])


def _highest(scored: Iterable[tuple[dict[Level, Any], float]], level: Level) -> list[float]:
    """Return the score of each unit of a level: that of its highest part."""
    highest: dict[Any, float] = {}
    for names, score in scored:
        if level in names:
            highest[names[level]] = max(score, highest.get(names[level], 0.0))
    return list(highest.values())


def _pixel_threshold(
    largest: LargestValues, pixels: int, rate: float, device: str | torch.device
) -> float:
    values = gathered(largest.values, device=device).sort(descending=True).values
    if not values[0] > 0:
        raise InputError(
            "The anomaly maps are 0 on all held-out normal images; train longer first."
        )
    return threshold_at_false_positive_rate(values[: largest.count], pixels, rate)


def _normal_scores(
    scored: Sequence[tuple[dict[Level, Any], float]],
    rates: dict[Level, float],
    fitted: set[str] | None,
) -> dict[Level, NormalScores]:
    """Return the normal scores of each level; ``fitted`` are subjects that thresholds should not use."""
    subjects = {names[Level.PATIENT] for names, _ in scored if Level.PATIENT in names}
    shared = fitted is None or bool(subjects & fitted)
    found = {}
    for level in Level:
        scores = _highest(scored, level)
        reasons = []
        if shared:
            reasons.append("the same subjects set the fusion's scale and the thresholds")
        needed = units_needed(rates[level])
        if 0 < len(subjects) < min(len(scores), needed):
            reasons.append(
                f"{len(scores)} {level}s of only {len(subjects)} subjects are alike; {needed} "
                "subjects are needed"
            )
        found[level] = NormalScores(tuple(scores), rates[level], "; ".join(reasons))
    return found


def _check_rates(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name.endswith("_rate") and not 0 < value < 1:
            raise InputError(f"{name} must lie in (0, 1), got {value}.")


@torch.no_grad()
def set_thresholds(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    fitted: set[str] | None = None,
    device: str | torch.device = "cpu",
    pixel_false_positive_rate: float = 0.01,
    image_false_positive_rate: float = 0.05,
    volume_false_positive_rate: float = 0.05,
    score_fraction: float = 0.0,
    group: str | None = None,
) -> None:
    """Set the network's pixel threshold and normal scores; its fusion statistics stay.

    At most ``pixel_false_positive_rate`` of the normal foreground pixels reach 0.5 in the calibrated
    map. Kept are the scores of normal slices, volumes (the highest of their slices) and patients (the
    highest of their volumes), each with its own rate: see :class:`multiad_med.scoring.NormalScores`.

    P-values are marked approximate where a subject set the fusion's statistics too, and where slices,
    or volumes, come from fewer subjects than the rate needs: units of one subject are alike.

    Args:
        network: changed in place.
        batches: ``image (B, C, H, W)`` in [0, 1] and, optionally, ``foreground (B, 1, H, W)``, ``study``
            and ``subject``, lists of names. Normal images only, of subjects that were not trained on.
            Without ``study`` there is no verdict on volumes, without ``subject`` none on patients.
            Iterated twice.
        fitted: subjects that the fusion's statistics come from; None where they are the same.
        device: where the network is.
        pixel_false_positive_rate: fraction of normal foreground pixels at or above the threshold.
        image_false_positive_rate: fraction of normal slices, or images, that are called anomalous.
        volume_false_positive_rate: fraction of normal volumes, and of normal patients.
        score_fraction: see :func:`multiad_med.scoring.image_scores`; 0 is the maximum.
        group: key of the batches whose value is the same for parts of one image, such as ``subject``
            for tiles; the image's score is the highest of its parts.

    Raises:
        InputError: when there are no images, no foreground, a rate is not in (0, 1), or a map is
            constant on all of them.
    """
    rates = {
        Level.SLICE: image_false_positive_rate,
        Level.VOLUME: volume_false_positive_rate,
        Level.PATIENT: volume_false_positive_rate,
    }
    _check_rates({f"{level}_false_positive_rate": rate for level, rate in rates.items()})
    _check_rates({"pixel_false_positive_rate": pixel_false_positive_rate})
    network.eval()
    pixels = sum(_pixels(image, mask) for image, mask, _ in images_of(batches, device))
    pixels = _check_any(pixels, device)
    largest = LargestValues(math.floor(pixel_false_positive_rate * (pixels + 1)) + 1)
    units: list[Unit] = []
    for image, foreground, batch in images_of(batches, device):
        maps = network.raw_map(image)
        shown = maps[:, :1]
        largest.update(shown if foreground is None else shown[foreground > 0])
        joint = maps.sum(dim=1, keepdim=True)  # scores count tokens of the whole image
        units += _units(joint, foreground, batch, fraction=score_fraction, group=group)
    threshold = _pixel_threshold(largest, pixels, pixel_false_positive_rate, device)
    network.card.levels = _normal_scores(_scored(units, threshold), rates, fitted)
    network.pixel_threshold.fill_(threshold)
    network.pixel_false_positive_rate.fill_(pixel_false_positive_rate)
    network.score_fraction.fill_(score_fraction)
    network.calibrated.fill_(True)


@torch.no_grad()
def calibrate(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    threshold_batches: Iterable[dict[str, Any]] | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> None:
    """Set the network's fusion statistics, pixel threshold and normal scores from held-out normals.

    A pass over ``batches`` sets each stage's statistics over foreground locations (Psi, Eq. 14), two over
    ``threshold_batches`` what :func:`set_thresholds` sets. All of it lives in the network's state dict.

    In a process group each process passes over its share of the images, and all get the same values.

    Args:
        network: changed in place.
        batches: as of :func:`set_thresholds`.
        threshold_batches: of the subjects that set thresholds; without it those of ``batches``.
        device: where the network is.
        options: further arguments of :func:`set_thresholds`.

    Raises:
        InputError: as of :func:`set_thresholds`.
    """
    _check_rates(options)
    network.eval()
    fitted = _fit_fusion(network, batches, device)
    _fit_alignment(network, batches, device)
    set_thresholds(
        network,
        batches if threshold_batches is None else threshold_batches,
        fitted=None if threshold_batches is None else fitted,
        device=device,
        **options,
    )


@torch.no_grad()
def score_units(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    device: str | torch.device = "cpu",
    group: str | None = None,
) -> dict[Level, list[float]]:
    """Return the scores of the units of each level, by a network whose thresholds are set.

    Args:
        network: a calibrated one.
        batches: see :func:`set_thresholds`.
        device: see :func:`set_thresholds`.
        group: see :func:`set_thresholds`.
    """
    network.eval()
    units: list[Unit] = []
    fraction = float(network.score_fraction)
    for image, foreground, batch in images_of(batches, device):
        joint = network.raw_map(image).sum(dim=1, keepdim=True)
        units += _units(joint, foreground, batch, fraction=fraction, group=group)
    scored = _scored(units, float(network.pixel_threshold))
    return {level: _highest(scored, level) for level in Level}


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
        """Register for the end of training, and for its start, which refuses what must fail then."""
        engine.add_event_handler(Events.STARTED, self._check)
        engine.add_event_handler(Events.COMPLETED, self)

    def _check(self, engine: Engine) -> None:
        """Refuse one held-out image for a network with tokens, and warn of few."""
        dataset = getattr(self.batches, "dataset", None)
        if not self.network.has_tokens or not isinstance(dataset, Sized):
            return
        if len(dataset) < 2:
            raise InputError(
                "A network with a token of the whole image needs at least 2 held-out normal images, to "
                f"know how far normal ones are apart, and has {len(dataset)}. Give more normal images, "
                "hold out a larger part of them, or choose a preset without a token."
            )
        if len(dataset) < _TOKENS:
            _logger.warning(
                "Only %d held-out normal images say how far normal ones are apart as a whole: scores "
                "that count the whole image are rough. %d or more are better.",
                len(dataset),
                _TOKENS,
            )

    def __call__(self, engine: Engine) -> None:
        """Calibrate."""
        calibrate(self.network, self.batches, **self.kwargs)
