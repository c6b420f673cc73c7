"""One threshold for several categories: maps are measured by the level of similar normal images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.utils.errors import InputError

__all__ = ["TokenLevels"]

ROWS = 512
"""Held-out normal images that are kept."""
NEIGHBOURS = 3
_SAME = 1e-5
"""Cosine distance below which two tokens are of one image, which must not be its own measure."""
_LOWEST = 0.1
"""Part of the typical level below which none falls, so that no map grows without bound."""


class TokenLevels(nn.Module):
    """Says by which factor an image's map is multiplied, so that all categories have one level.

    Some categories have high maps on normal images, others low ones, and one threshold for all flags the
    former. Kept are tokens of held-out normal images, and how high the map of each reaches. The level of
    an image is the mean of those of its three nearest; nobody has to name its category. What is found is
    buffers, so that it is saved and exported. Before it is fitted the factor is 1.

    Args:
        stage: of the token, counted from 1.
        channels: of the token.
    """

    tokens: Tensor
    levels: Tensor
    typical: Tensor

    def __init__(self, stage: int, channels: int) -> None:
        super().__init__()
        self.stage = stage
        self.neighbours: int = NEIGHBOURS
        self.same: float = _SAME
        self.lowest: float = _LOWEST
        self.register_buffer("tokens", torch.zeros(ROWS, channels))
        self.register_buffer("levels", torch.ones(ROWS))
        self.register_buffer("typical", torch.tensor(1.0))

    def token(self, teacher: list[Tensor]) -> Tensor:
        """Return an image's token ``(B, C)`` of length 1, of the teacher's features."""
        return F.normalize(teacher[self.stage - 1].float().flatten(1), dim=1)

    @torch.jit.unused
    def fit(self, tokens: Tensor, levels: Tensor) -> None:
        """Take what held-out normal images have.

        Args:
            tokens: ``(N, C)`` of length 1; of more than 512 as many are kept.
            levels: ``(N,)``, how high the map of each reaches.

        Raises:
            InputError: when there are fewer than 4, or all levels are 0.
        """
        if len(levels) <= self.neighbours or not levels.max() > 0:
            raise InputError(
                f"Aligned categories need at least {self.neighbours + 1} held-out normal images whose "
                f"maps are not 0, got {len(levels)}. Hold out more of them, or leave align_categories "
                "out."
            )
        kept = torch.linspace(0, len(levels) - 1, min(len(levels), ROWS)).long()
        tokens, levels = tokens[kept], levels[kept]
        typical = levels[levels > 0].median()
        self.tokens.zero_()  # a row of zeros is far from everything
        self.tokens[: len(tokens)].copy_(tokens)
        self.levels.fill_(float(typical))
        self.levels[: len(levels)].copy_(levels)
        self.typical.copy_(typical)

    def forward(self, teacher: list[Tensor]) -> Tensor:
        """Return factors ``(B, 1, 1, 1)`` above 0, of the teacher's features."""
        distances = 1.0 - self.token(teacher) @ self.tokens.t()
        distances = torch.where(distances < self.same, 2.0, distances)
        nearest = torch.topk(distances, self.neighbours, dim=1, largest=False)[1]
        level = self.levels[nearest].mean(dim=1)
        return (self.typical / torch.maximum(level, self.lowest * self.typical)).reshape(
            -1, 1, 1, 1
        )
