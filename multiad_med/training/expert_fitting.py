"""Fitting the experts of a network: one pass over normal images, before calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.distributed import get_rank
from ignite.engine import Engine, Events
from torch import Tensor

from multiad_med.networks import MultiAD
from multiad_med.networks.experts import Expert
from multiad_med.training.calibration import images_of
from multiad_med.training.distributed import gathered_items

__all__ = ["ExpertHandler", "expert_statistics", "fit_experts", "unite_experts"]

States = Sequence[Mapping[str, Tensor]]
"""What each expert of a network has collected."""


def _experts(network: MultiAD) -> list[Expert]:
    return [e for e in (*network.experts, *network.whitening) if isinstance(e, Expert)]


@torch.no_grad()
def expert_statistics(
    network: MultiAD,
    batches: Iterable[dict[str, Any]],
    *,
    device: str | torch.device = "cpu",
    part: int = 0,
) -> list[dict[str, Tensor]]:
    """Collect what the experts of a network need of normal images, in one pass.

    Memory does not grow with the number of images.

    Args:
        network: whose experts collect.
        batches: as of :func:`multiad_med.training.calibrate`; normal images only.
        device: where the network is.
        part: number of the process or site; see :meth:`multiad_med.networks.experts.Expert.statistics`.

    Returns:
        A state for each expert. A Gaussian's are sums; those of nearest neighbours are patches of the
        images' features.

    Raises:
        InputError: when a feature is not finite.
    """
    network.eval()
    collected = [expert.statistics(part=part) for expert in _experts(network)]
    for image, foreground, _ in images_of(batches, device) if collected else ():
        teacher, residuals = network.observed(image)
        if foreground is not None:
            foreground = network.on_whole_patches(foreground)
        for number, statistics in enumerate(collected):
            of_stage = number - len(network.experts)
            features = teacher if of_stage < 0 else [residuals[of_stage]]
            statistics.update(features, foreground)
    return [statistics.state() for statistics in collected]


def unite_experts(network: MultiAD, parts: Sequence[States]) -> None:
    """Fit the experts of a network to what several processes or sites have collected.

    Args:
        network: changed in place.
        parts: of :func:`expert_statistics`, one of each process or site, in an order that all share.

    Raises:
        InputError: when there is no normal image, or all are constant.
    """
    for number, expert in enumerate(_experts(network)):
        statistics = expert.statistics()
        for states in parts:
            statistics.merge(states[number])
        expert.fit(statistics)


def fit_experts(
    network: MultiAD, batches: Iterable[dict[str, Any]], *, device: str | torch.device = "cpu"
) -> None:
    """Fit the experts of a network to normal images; in a process group, to those of all processes.

    Args:
        network: changed in place.
        batches: see :func:`expert_statistics`. Of a process group, each process's own share.
        device: see :func:`expert_statistics`.

    Raises:
        InputError: see :func:`expert_statistics` and :func:`unite_experts`.
    """
    own = expert_statistics(network, batches, device=device, part=get_rank())
    unite_experts(network, gathered_items([own]))


class ExpertHandler:
    """Fits the experts when training has completed.

    Attach it before the handler that calibrates.

    Args:
        network: the network that was trained.
        batches: see :func:`fit_experts`.
        device: see :func:`fit_experts`.
    """

    def __init__(
        self,
        network: MultiAD,
        batches: Iterable[dict[str, Any]],
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = network
        self.batches = batches
        self.device = device

    def attach(self, engine: Engine) -> None:
        """Register for the end of training."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Fit the experts."""
        fit_experts(self.network, self.batches, device=self.device)
