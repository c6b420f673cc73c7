"""The distance of an image's token to the nearest tokens of normal images."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks.experts.expert import Expert, Statistics, check_finite
from multiad_med.networks.experts.reservoir import Reservoir
from multiad_med.utils.errors import InputError

__all__ = ["TokenNeighbours", "TokenSample"]

ROWS = 2048
"""Normal tokens that are kept."""
NEIGHBOURS = 2


class TokenSample(Statistics):
    """A uniform sample of normal tokens.

    Args:
        stage: of the token, counted from 1.
        channels: of the token.
        seed: of the sample; processes and sites that are united need different ones.
    """

    def __init__(self, stage: int, channels: int, *, seed: int) -> None:
        self.stage = stage
        self.sample = Reservoir(ROWS, columns=channels, seed=seed)

    def update(self, features: list[Tensor], foreground: Tensor | None = None) -> None:
        """See :class:`Statistics`; a token is of the whole image, with its background."""
        token = check_finite(features[self.stage - 1].float().flatten(1))
        self.sample.update(F.normalize(token, dim=1))

    def state(self) -> dict[str, Tensor]:
        """Return the sample. It is of patients' images: whether it may leave a site is theirs to say."""
        return self.sample.state()

    def merge(self, state: Mapping[str, Tensor]) -> Self:
        """Unite it with another."""
        self.sample.merge(state)
        return self


class TokenNeighbours(Expert):
    """Measures the mean cosine distance to the two nearest normal tokens.

    Of all normal images at most 2,048 tokens are kept, a uniform sample. This is the untrained rival of a
    semantic student (2-NN, as in PANDA and Mean-Shifted; Reiss et al., CVPR 2021, AAAI 2023).

    Args:
        channels: of the teacher's stages.
        stages: the token's alone, counted from 1; without it the last.
        seed: of the sample.
    """

    whole_image = True
    bank: Tensor

    def __init__(
        self, channels: Sequence[int], *, stages: Sequence[int] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.stages = [stages[0] if stages else len(channels)]
        self.seed = seed
        self.neighbours: int = NEIGHBOURS
        self.register_buffer("bank", torch.zeros(ROWS, channels[self.stages[0] - 1]))

    @torch.jit.unused
    def statistics(self, *, part: int = 0) -> TokenSample:
        """Make an empty sample; see :class:`Expert`."""
        return TokenSample(self.stages[0], self.bank.shape[1], seed=self.seed + 7919 * part)

    @torch.jit.unused
    def fit(self, statistics: Statistics) -> None:
        """Keep the sample; see :class:`Expert`."""
        rows = statistics.sample.rows() if isinstance(statistics, TokenSample) else torch.empty(0)
        if len(rows) < NEIGHBOURS:
            raise InputError(
                f"The nearest normal tokens need at least {NEIGHBOURS} normal images, got {len(rows)}."
            )
        # Of few images the rest of the bank is far from everything, so that the file has one form.
        self.bank.zero_()
        self.bank[: len(rows)].copy_(rows)
        self.fitted.fill_(True)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return distances ``(B, 1, 1, 1)`` in [0, 2] of the token; see :class:`Expert`."""
        token = F.normalize(features[self.stages[0] - 1].flatten(1), dim=1)
        there = self.bank.abs().sum(dim=1) > 0
        distances = torch.where(there, 1.0 - token @ self.bank.t(), 2.0)
        nearest = torch.topk(distances, self.neighbours, dim=1, largest=False)[0]
        return nearest.mean(dim=1).clamp_min(0.0).reshape(-1, 1, 1, 1)
