"""One Gaussian of the tokens of normal images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from multiad_med.networks.experts.expert import Expert, Statistics
from multiad_med.networks.experts.whitened_residual import ResidualSums
from multiad_med.utils.errors import InputError

__all__ = ["TokenGaussian", "TokenSums"]

_VARIANCE = 0.9
"""Part of the variance that the kept directions explain."""

_ROUNDING = 1e-12
"""Part of the tokens' mean square that is no variance, but rounding."""


class TokenSums(ResidualSums):
    """Sums of normal tokens and of their products, in float64.

    Args:
        stage: of the token, counted from 1.
        channels: of the token.
    """

    def __init__(self, stage: int, channels: int) -> None:
        super().__init__(channels)
        self.stage = stage

    def update(self, features: list[Tensor], foreground: Tensor | None = None) -> None:
        """See :class:`Statistics`; a token is of the whole image, with its background."""
        super().update([features[self.stage - 1]])


class TokenGaussian(Expert):
    """Measures the Mahalanobis distance of a token along the directions in which normal tokens differ.

    Kept are the directions of most variance, which explain 90 % of it (Transformaly, Cohen and Avidan,
    CVPRW 2022). This is the untrained rival of a semantic student.

    Args:
        channels: of the teacher's stages.
        stages: the token's alone, counted from 1; without it the last.
    """

    whole_image = True
    stages: list[int]
    mean: Tensor
    whitening: Tensor

    def __init__(self, channels: Sequence[int], *, stages: Sequence[int] | None = None) -> None:
        super().__init__()
        self.stages = [stages[0] if stages else len(channels)]
        count = channels[self.stages[0] - 1]
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("whitening", torch.eye(count))

    @torch.jit.unused
    def statistics(self, *, part: int = 0) -> TokenSums:
        """Make empty sums; the same for all parts."""
        return TokenSums(self.stages[0], len(self.mean))

    @torch.jit.unused
    def fit(self, statistics: Statistics) -> None:
        """Take mean and directions from sums; see :class:`Expert`."""
        if not isinstance(statistics, TokenSums) or statistics.count < 2:
            raise InputError("A Gaussian of tokens needs at least 2 normal images.")
        mean = statistics.sums / statistics.count
        covariance = statistics.products / statistics.count - torch.outer(mean, mean)
        variances, directions = torch.linalg.eigh(covariance)
        variances, directions = variances.flip(0).clamp_min(0), directions.flip(1)
        total = variances.sum()
        if not float(total) > _ROUNDING * float(statistics.products.trace() / statistics.count):
            raise InputError(
                "The tokens of all normal images are the same; check that the images differ."
            )
        kept = int((variances.cumsum(0) < _VARIANCE * total).sum()) + 1
        self.mean.copy_(mean)
        self.whitening.zero_()
        self.whitening[:kept].copy_((directions[:, :kept] / variances[:kept].sqrt()).t())
        self.fitted.fill_(True)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return distances ``(B, 1, 1, 1)``, 0 and more, of the token; see :class:`Expert`."""
        rows = features[self.stages[0] - 1].flatten(1) - self.mean
        distance = torch.sqrt((rows @ self.whitening.t()).square().sum(dim=1))
        return distance.reshape(-1, 1, 1, 1)
