"""A Gaussian of normal features for each position of the image."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.experts.expert import (
    Expert,
    Statistics,
    check_finite,
    orthonormal,
    usual_stages,
)
from multiad_med.utils.errors import InputError

__all__ = ["GaussianSums", "PositionGaussian"]

GRID = 32
"""Positions along each side, whatever the image's size."""
CELLS = 16
"""Cells along each side. The positions of a cell share one covariance."""
STAGES = (1, 2, 3)
DIMENSIONS = 192
"""To which the stages' channels are projected, where they are more."""
_INSIDE = GRID // CELLS


# TorchScript sees constants of a module as default values only.
def on_grid(features: list[Tensor], stages: list[int], grid: int = GRID) -> Tensor:
    """Return the stages' features at all positions, ``(B, C, 32, 32)``, C of all of them together."""
    maps: list[Tensor] = []
    for stage in stages:
        maps.append(
            F.interpolate(
                features[stage - 1].float(), size=[grid, grid], mode="bilinear", align_corners=False
            )
        )
    return torch.cat(maps, dim=1)


def by_cell(x: Tensor, cells: int = CELLS, inside: int = _INSIDE) -> Tensor:
    """From ``(B, C, 32, 32)`` to ``(cells, B, positions of a cell, C)``."""
    channels = x.shape[1]
    x = x.reshape(-1, channels, cells, inside, cells, inside).permute(2, 4, 0, 3, 5, 1)
    return x.reshape(cells * cells, -1, inside * inside, channels)


def to_grid(x: Tensor, cells: int = CELLS, inside: int = _INSIDE) -> Tensor:
    """From values ``(cells, B x positions of a cell)`` to maps ``(B, 1, 32, 32)``."""
    x = x.reshape(cells, cells, -1, inside, inside).permute(2, 0, 3, 1, 4)
    return x.reshape(-1, 1, cells * inside, cells * inside)


class GaussianSums(Statistics):
    """Sums of projected features and of their products at each place, in float64.

    Args:
        stages: see :class:`PositionGaussian`.
        projection: ``(C, D)``, from the stages' channels to what is collected.
    """

    def __init__(self, stages: Sequence[int], projection: Tensor) -> None:
        self.stages = list(stages)
        self.projection = projection
        columns = projection.shape[1]
        self.count = torch.zeros((), dtype=torch.float64)
        self.sums = torch.zeros(CELLS**2, _INSIDE**2, columns, dtype=torch.float64)
        self.products = torch.zeros(CELLS**2, columns, columns, dtype=torch.float64)

    def update(self, features: list[Tensor], foreground: Tensor | None = None) -> None:
        """See :class:`Statistics`. Positions in the background are positions too."""
        x = by_cell(check_finite(on_grid(features, self.stages)).cpu()) @ self.projection
        self.count += x.shape[1]
        self.sums += x.double().sum(dim=1)
        flat = x.flatten(1, 2).double()
        self.products += flat.transpose(1, 2) @ flat

    def state(self) -> dict[str, Tensor]:
        """Return the sums."""
        return {"count": self.count, "sums": self.sums, "products": self.products}

    def merge(self, state: Mapping[str, Tensor]) -> Self:
        """Add the sums of another."""
        self.count += state["count"].cpu()
        self.sums += state["sums"].cpu()
        self.products += state["products"].cpu()
        return self


def _unpack(module: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(module, PositionGaussian)
    module.unpack()


class PositionGaussian(Expert):
    """Measures the Mahalanobis distance to normal features of the same position (PaDiM, Defard 2021).

    For images that are aligned: what lies where in one lies there in the others. Features of the stages
    are brought to 32 x 32 positions, projected to at most 192 dimensions, and standardised. Each position
    has its own mean, each square of 2 x 2 positions its own covariance, of which half is kept in float16:
    10 MB at most. The covariance is drawn to the diagonal of the average one by as many
    pseudo-observations as it has dimensions, so that few images suffice, at the loss of what tells
    directions apart.

    Args:
        channels: of the teacher's stages.
        stages: that are looked at, counted from 1; without it those of (1, 2, 3) that there are.
        seed: of the projection.
    """

    stages: list[int]
    projection: Tensor
    scale: Tensor
    mean: Tensor
    packed: Tensor
    whitening: Tensor

    def __init__(
        self, channels: Sequence[int], *, stages: Sequence[int] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.stages = list(stages or usual_stages(channels, STAGES))
        total = sum(channels[s - 1] for s in self.stages)
        d = min(total, DIMENSIONS)
        self.register_buffer("projection", orthonormal(total, d, seed=seed))
        self.register_buffer("scale", torch.ones(d))
        self.register_buffer("mean", torch.zeros(CELLS**2, _INSIDE**2, d))
        # The whitening is triangular: its lower half is kept, the square is made of it on loading.
        self.register_buffer("packed", torch.zeros(CELLS**2, d * (d + 1) // 2, dtype=torch.float16))
        self.register_buffer("whitening", torch.zeros(CELLS**2, d, d), persistent=False)
        self.register_load_state_dict_post_hook(_unpack)

    @torch.jit.unused
    def statistics(self, *, part: int = 0) -> GaussianSums:
        """Make empty sums; the same for all parts."""
        return GaussianSums(self.stages, self.projection.cpu())

    @torch.jit.unused
    def fit(self, statistics: Statistics) -> None:
        """Take means and covariances from sums; see :class:`Expert`."""
        if not isinstance(statistics, GaussianSums) or statistics.count < 1:
            raise InputError(
                "A Gaussian for each position needs one normal image at least; got none."
            )
        n, d = float(statistics.count), len(self.scale)
        observations = n * _INSIDE**2
        mean = statistics.sums / n
        scatter = statistics.products - n * mean.transpose(1, 2) @ mean
        within = torch.diagonal(scatter, dim1=1, dim2=2).sum(dim=0) / (n * GRID**2)
        between = (mean - mean.mean(dim=(0, 1))).square().mean(dim=(0, 1))
        variance = within + between
        if not float(variance.max()) > 0:
            raise InputError(
                "The teacher's features are the same everywhere on all normal images. Give images that "
                "show something."
            )
        scale = variance.clamp_min(1e-6 * float(variance.max())).sqrt()
        scatter = scatter / (scale[:, None] * scale)
        # Positions, or single images, without variation get 1 % of what all places differ by.
        prior = torch.diag((within / scale**2).clamp_min(0.01))
        factor = torch.linalg.cholesky((scatter + d * prior) / (observations + d))
        whitening = torch.linalg.solve_triangular(
            factor, torch.eye(d, dtype=factor.dtype).expand_as(factor), upper=False
        )
        rows, columns = torch.tril_indices(d, d)
        self.scale.copy_(scale)
        self.mean.copy_(mean / scale)
        self.packed.copy_(whitening[:, rows, columns])
        self.fitted.fill_(True)
        self.unpack()

    @torch.jit.unused
    def unpack(self) -> None:
        """Make the square whitening matrices of their lower halves."""
        rows, columns = torch.tril_indices(len(self.scale), len(self.scale))
        self.whitening.zero_()
        self.whitening[:, rows, columns] = self.packed.to(self.whitening)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return distances ``(B, 1, 32, 32)``; see :class:`Expert`."""
        x = by_cell(on_grid(features, self.stages)) @ self.projection
        x = x / self.scale - self.mean.unsqueeze(1)
        flat = x.reshape(x.shape[0], -1, x.shape[3]) @ self.whitening.transpose(1, 2)
        return to_grid(torch.sqrt(flat.square().sum(dim=2)))
