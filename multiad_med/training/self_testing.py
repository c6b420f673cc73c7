"""Self-test after training: whether a model finds pseudo-anomalies, and what it reacts to."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from ignite.distributed import get_rank, get_world_size
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from torch import Tensor

from multiad_med.metrics import auroc
from multiad_med.networks import MultiAD
from multiad_med.scoring import Level, image_scores
from multiad_med.self_test_result import Finding, Reaction, SelfTest
from multiad_med.training.distributed import gathered, is_main_process
from multiad_med.transforms import (
    EXTREMES,
    LIGHT,
    NuisanceChange,
    PseudoAnomaly,
    put_pseudo_anomalies,
)
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = [
    "SelfTestHandler",
    "put_all_pseudo_anomalies",
    "record_self_test",
    "sample_slices",
    "self_test",
]

_IMAGES = 64
_SIZES = (0.01, 0.02, 0.05, 0.1, 0.25)

_logger = logging.getLogger(__name__)

Slices = tuple[Tensor, Tensor]
"""Images ``(N, C, H, W)`` and their foreground ``(N, 1, H, W)``, on the CPU."""


def _usable(batches: Iterable[dict[str, Any]]) -> Iterable[Slices]:
    """Yield the slices of each batch that have any foreground."""
    for batch in batches:
        images = plain_tensor(batch[CommonKeys.IMAGE]).cpu().float()
        given = batch.get("foreground")
        inside = torch.ones_like(images[:, :1]) if given is None else torch.as_tensor(given)
        inside = inside.as_subclass(Tensor).cpu() > 0
        kept = inside.flatten(1).any(dim=1)
        yield images[kept], inside[kept]


def sample_slices(
    batches: Iterable[dict[str, Any]], limit: int = _IMAGES, *, device: str | torch.device = "cpu"
) -> Slices:
    """Return up to ``limit`` slices with foreground of this process's share, spread evenly over it.

    Args:
        batches: see :func:`self_test`.
        limit: how many.
        device: where processes exchange how many they have.

    Raises:
        InputError: when there is none.
    """
    total = sum(len(images) for images, _ in _usable(batches))
    if not gathered(torch.tensor([total]), device=device).any():
        raise InputError(
            "The self-test needs held-out normal images with foreground, and got none: add subjects to "
            "the datalist's validation split."
        )
    count = min(limit, total)
    wanted = torch.tensor([int((i + 0.5) * total / count) for i in range(count)], dtype=torch.long)
    chosen: list[Slices] = []
    start = 0
    for images, inside in _usable(batches):
        own = wanted[(wanted >= start) & (wanted < start + len(images))] - start
        chosen.append((images[own], inside[own]))
        start += len(images)
    return torch.cat([i for i, _ in chosen]), torch.cat([f for _, f in chosen])


def _changed(slices: Slices, change: NuisanceChange) -> Slices:
    """Return the slices, all under one change."""
    images, foreground = slices[0].clone(), slices[1].clone()
    for image, inside in zip(images, foreground, strict=True):
        image.copy_(change.image(image))
        inside.copy_(change.moved(inside))
    return images, foreground


def put_all_pseudo_anomalies(slices: Slices, *, seed: int = 0) -> Iterator[Slices]:
    """Yield the slices with one pseudo-anomaly each, and its masks: of every kind and size.

    Args:
        slices: normal images, and their foreground.
        seed: decides places and strengths.
    """
    generator = torch.Generator().manual_seed(seed)
    for kind in PseudoAnomaly:
        for size in _SIZES:
            yield put_pseudo_anomalies(*slices, kind=kind, size=size, generator=generator)


def _auroc(anomalous: Tensor, normal: Tensor) -> float:
    return auroc(
        torch.cat([anomalous, normal]), torch.arange(len(anomalous) + len(normal)) < len(anomalous)
    )


class _Scorer:
    """Maps and scores slices with a network, a few at a time.

    Args:
        network: a calibrated one, in evaluation mode.
        device: where it is.
        batch_size: how many are mapped at once.
    """

    def __init__(self, network: MultiAD, device: str | torch.device, batch_size: int) -> None:
        self.network = network
        self.device = device
        self.batch_size = batch_size

    def maps(self, images: Tensor) -> Tensor:
        """Return maps ``(N, 1 or 2, H, W)``, as the network gives them, on the CPU."""
        if not len(images):  # of a process whose share has no foreground
            return images[:, :1]
        parts = [self.network(part.to(self.device)).cpu() for part in images.split(self.batch_size)]
        return torch.cat(parts)

    def scores(self, maps: Tensor, foreground: Tensor) -> Tensor:
        """Return scores ``(M,)`` of the slices of all processes."""
        scores = image_scores(maps, foreground, fraction=float(self.network.score_fraction))
        return gathered(scores, device=self.device)

    def __call__(self, slices: Slices) -> Tensor:
        """Return scores ``(M,)`` of the slices of all processes."""
        return self.scores(self.maps(slices[0]), slices[1])


def _finding(
    kind: PseudoAnomaly,
    size: float,
    slices: Slices,
    normals: Sequence[Tensor],
    scorer: _Scorer,
    generator: torch.Generator,
) -> Finding:
    """Measure how well anomalies of a kind and size are found.

    Args:
        normals: scores of the normal slices, first unchanged, then under each nuisance.
    """
    images, foreground = slices
    changed, masks = put_pseudo_anomalies(
        images, foreground, kind=kind, size=size, generator=generator
    )
    maps = scorer.maps(changed)
    pixels = [
        auroc(values[inside], mask[inside])
        for values, mask, inside in zip(maps[:, :1], masks, foreground, strict=True)
        if (inside & ~mask).any()
    ]
    of_all = gathered(torch.tensor(pixels, dtype=torch.float64), device=scorer.device)
    anomalous = scorer.scores(maps, foreground)
    of_slices = [_auroc(anomalous, normal) for normal in normals]
    return Finding(
        kind=str(kind),
        size=size,
        slice_auroc=of_slices[0],
        worst_auroc=min(of_slices),
        pixel_auroc=float(of_all.mean()) if len(of_all) else None,
    )


@torch.no_grad()
def self_test(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> SelfTest:
    """Test what a trained model finds and what it reacts to, with normal images alone.

    At most 64 held-out normal slices are used, spread evenly over all. Each gets one pseudo-anomaly, of
    every kind of :class:`multiad_med.transforms.PseudoAnomaly` and of 1, 2, 5, 10 and 25 % of the side.
    Their scores are compared with those of the normal slices: unchanged, and under the nuisance
    (:class:`multiad_med.transforms.Nuisance`) that hurts most. The scores of normal slices under each
    nuisance show what the model reacts to.

    It maps at most 32 times 64 slices, and draws from a generator of its own, so that nothing else
    depends on it. In a process group each process takes its share of the slices; all get one result.

    Args:
        network: a calibrated one; evaluation mode is set.
        batches: ``image (B, C, H, W)`` in [0, 1] and, optionally, ``foreground (B, 1, H, W)``; normal
            slices that were not trained on. Iterated twice.
        device: where the network is.
        seed: decides places and strengths.

    Raises:
        InputError: when there is no image with foreground.
    """
    network.eval()
    slices = sample_slices(batches, math.ceil(_IMAGES / get_world_size()), device=device)
    scorer = _Scorer(network, device, batch_size=8)
    generator = torch.Generator().manual_seed(seed * 100_003 + get_rank())
    unchanged = scorer(slices)
    changed = {n: scorer(_changed(slices, change)) for n, change in EXTREMES.items()}
    normals = [unchanged, *changed.values()]
    levels = network.card.level(Level.SLICE)

    def flagged(scores: Tensor) -> float | None:
        return None if levels.threshold is None else float(levels.flagged(scores).float().mean())

    return SelfTest(
        images=len(unchanged),
        flagged=flagged(unchanged),
        findings=tuple(
            _finding(kind, size, slices, normals, scorer, generator)
            for kind in PseudoAnomaly
            for size in _SIZES
        ),
        reactions=tuple(
            Reaction(
                nuisance=str(nuisance),
                light=nuisance in LIGHT,
                auroc=_auroc(scores, unchanged),
                flagged=flagged(scores),
            )
            for nuisance, scores in changed.items()
        ),
    )


def record_self_test(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> SelfTest:
    """Run the self-test, put it on the model's card, and log it with its warnings.

    Args:
        network: see :func:`self_test`.
        batches: see :func:`self_test`.
        device: see :func:`self_test`.
        seed: see :func:`self_test`.

    Raises:
        InputError: see :func:`self_test`.
    """
    found = self_test(network, batches, device=device, seed=seed)
    network.card.self_test = found
    if is_main_process():
        _logger.info("%s", found.summary)
        for warning in found.warnings():
            _logger.warning("%s", warning)
    return found


class SelfTestHandler:
    """Runs the self-test when training has completed.

    Attach it after the handler that calibrates and before the one that saves the model. In TensorBoard
    ``self_test/KIND`` and ``self_test/all`` are the AUROC of slices, ``self_test/worst`` that under the
    worst nuisance; the step is the size in percent of the side. ``self_test/reaction_NUISANCE`` is the
    AUROC of changed against unchanged normals.

    Args:
        network: the network that was trained.
        batches: see :func:`self_test`.
        device: where the network is.
        seed: see :func:`self_test`.
        log_dir: folder of TensorBoard's event file; none is written without it.
    """

    def __init__(
        self,
        network: MultiAD,
        batches: Iterable[dict[str, Any]],
        *,
        device: str | torch.device = "cpu",
        seed: int = 0,
        log_dir: str | None = None,
    ) -> None:
        self.network = network
        self.batches = batches
        self.device = device
        self.seed = seed
        self.log_dir = log_dir

    def attach(self, engine: Engine) -> None:
        """Register for the end of training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Run the self-test."""
        found = record_self_test(self.network, self.batches, device=self.device, seed=self.seed)
        if self.log_dir is not None and is_main_process():
            self._write(found, self.log_dir)

    def _write(self, found: SelfTest, log_dir: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(log_dir) as writer:
            for size in found.sizes:
                step = round(100 * size)
                writer.add_scalar("self_test/all", found.slice_auroc(size=size), step)
                writer.add_scalar("self_test/worst", found.worst_auroc(size=size), step)
                for kind in found.kinds:
                    value = found.slice_auroc(kind=kind, size=size)
                    writer.add_scalar(f"self_test/{_tag(kind)}", value, step)
            for reaction in found.reactions:
                writer.add_scalar(f"self_test/reaction_{_tag(reaction.nuisance)}", reaction.auroc)


def _tag(name: str) -> str:
    return name.lower().replace(" ", "_")
