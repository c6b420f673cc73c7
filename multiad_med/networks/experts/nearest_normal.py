"""The distance to the nearest of many normal patches."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks.experts.expert import (
    Expert,
    Statistics,
    check_finite,
    orthonormal,
    usual_stages,
)
from multiad_med.networks.experts.reservoir import Reservoir
from multiad_med.utils.errors import InputError

__all__ = ["NearestNormal", "PatchSample"]

ROWS = 2048
"""Normal patches that are kept."""
STAGES = (2, 3)
DIMENSIONS = 128
"""Of a projected patch."""
SAMPLED = 50_000
"""Patches out of which those that are kept are chosen."""


def patches(features: list[Tensor], stages: list[int]) -> Tensor:
    """Means of 3 x 3 locations of the stages, ``(B, C, h, w)``, on the grid of the first of them."""
    size = features[stages[0] - 1].shape
    maps: list[Tensor] = []
    for stage in stages:
        x = F.avg_pool2d(features[stage - 1].float(), 3, stride=1, padding=1)
        maps.append(F.interpolate(x, size=[size[2], size[3]], mode="bilinear", align_corners=False))
    return torch.cat(maps, dim=1)


def greedy_coreset(rows: Tensor, size: int) -> Tensor:
    """Choose rows so that every row is near to a chosen one (greedy k-centre; Roth et al. 2022, Alg. 1).

    Args:
        rows: ``(N, D)``.
        size: number that is chosen, at most N.

    Returns:
        The chosen rows ``(size, D)``: the first of all, then always the one farthest from those before.
    """
    chosen = torch.zeros(size, dtype=torch.long)
    squares = rows.square().sum(dim=1)
    distances = torch.full_like(squares, torch.inf)
    for number in range(1, size):
        last = rows[chosen[number - 1]]
        torch.minimum(distances, squares - 2 * (rows @ last) + last @ last, out=distances)
        chosen[number] = distances.argmax()
    return rows[chosen]


class PatchSample(Statistics):
    """A uniform sample of projected normal patches in the foreground.

    Args:
        stages: see :class:`NearestNormal`.
        projection: ``(C, D)``.
        seed: of the sample; processes and sites that are united need different ones.
    """

    def __init__(self, stages: Sequence[int], projection: Tensor, *, seed: int) -> None:
        self.stages = list(stages)
        self.projection = projection
        self.sample = Reservoir(SAMPLED, columns=projection.shape[1], seed=seed)

    def update(self, features: list[Tensor], foreground: Tensor | None = None) -> None:
        """See :class:`Statistics`."""
        x = check_finite(patches(features, self.stages))
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        if foreground is not None:
            covered = F.adaptive_avg_pool2d(foreground.float(), (x.shape[2], x.shape[3]))
            rows = rows[covered.flatten().to(rows.device) >= 0.5]
        self.sample.update(rows.cpu() @ self.projection)

    def state(self) -> dict[str, Tensor]:
        """Return the sample. It is of patients' images: whether it may leave a site is theirs to say."""
        return self.sample.state()

    def merge(self, state: Mapping[str, Tensor]) -> Self:
        """Unite it with another."""
        self.sample.merge(state)
        return self


class NearestNormal(Expert):
    """Measures the distance to the nearest normal patch, wherever it lay (PatchCore, Roth et al. 2022).

    A patch is the mean of 3 x 3 locations of the stages, projected to at most 128 dimensions. Of 50,000
    that are drawn from all normal images a greedy coreset of 2,048 is kept: 1 MB, and a search whose time
    does not grow with the number of images.

    Args:
        channels: of the teacher's stages.
        stages: that are looked at, counted from 1; without it those of (2, 3) that there are.
        seed: of the projection and the sample.
    """

    stages: list[int]
    projection: Tensor
    bank: Tensor

    def __init__(
        self, channels: Sequence[int], *, stages: Sequence[int] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.stages = list(stages or usual_stages(channels, STAGES))
        self.seed = seed
        total = sum(channels[s - 1] for s in self.stages)
        d = min(total, DIMENSIONS)
        self.register_buffer("projection", orthonormal(total, d, seed=seed))
        self.register_buffer("bank", torch.zeros(ROWS, d))

    @torch.jit.unused
    def statistics(self, *, part: int = 0) -> PatchSample:
        """Make an empty sample; see :class:`Expert`."""
        return PatchSample(self.stages, self.projection.cpu(), seed=self.seed + 7919 * part)

    @torch.jit.unused
    def fit(self, statistics: Statistics) -> None:
        """Choose the coreset of a sample; see :class:`Expert`."""
        rows = statistics.sample.rows() if isinstance(statistics, PatchSample) else torch.empty(0)
        if not len(rows):
            raise InputError(
                "Nearest neighbours need normal patches in the foreground; there is none."
            )
        chosen = greedy_coreset(rows, min(ROWS, len(rows)))
        # Few patches are repeated, so that the file has one form.
        self.bank.copy_(chosen[torch.arange(ROWS) % len(chosen)])
        self.fitted.fill_(True)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return distances ``(B, 1, h, w)`` on the grid of the first stage; see :class:`Expert`."""
        x = patches(features, self.stages)
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) @ self.projection
        # In parts, so that no matrix of all rows and all patches goes through memory.
        nearest = rows.new_full(
            [rows.shape[0]], torch.inf
        )  # a length would be traced as a constant
        for part in self.bank.split(256):
            found = torch.addmm(part.square().sum(dim=1), rows, part.t(), alpha=-2.0)
            nearest = torch.minimum(nearest, found.amin(dim=1))
        squares = (nearest + rows.square().sum(dim=1)).clamp_min(0.0)
        return torch.sqrt(squares).reshape(-1, 1, x.shape[2], x.shape[3])
