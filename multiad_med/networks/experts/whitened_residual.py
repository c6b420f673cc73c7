"""The distance of teacher and student in units of how they usually differ."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from multiad_med.networks.experts.expert import Expert, Statistics, check_finite
from multiad_med.utils.errors import InputError

__all__ = ["ResidualSums", "WhitenedResidual"]


class ResidualSums(Statistics):
    """Sums of residuals in the foreground, and of their products, in float64.

    Args:
        channels: of the stage.
    """

    def __init__(self, channels: int) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.sums = torch.zeros(channels, dtype=torch.float64)
        self.products = torch.zeros(channels, channels, dtype=torch.float64)

    def update(self, features: list[Tensor], foreground: Tensor | None = None) -> None:
        """See :class:`Statistics`; ``features`` are the stage's residuals alone."""
        x = check_finite(features[0].float())
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        if foreground is not None:
            covered = F.adaptive_avg_pool2d(foreground.float(), (x.shape[2], x.shape[3]))
            rows = rows[covered.flatten().to(rows.device) >= 0.5]
        rows = rows.cpu().double()
        self.count += len(rows)
        self.sums += rows.sum(dim=0)
        self.products += rows.t() @ rows

    def state(self) -> dict[str, Tensor]:
        """Return the sums."""
        return {"count": self.count, "sums": self.sums, "products": self.products}

    def merge(self, state: Mapping[str, Tensor]) -> Self:
        """Add the sums of another."""
        self.count += state["count"].cpu()
        self.sums += state["sums"].cpu()
        self.products += state["products"].cpu()
        return self


class WhitenedResidual(Expert):
    """Measures the Mahalanobis distance of ``teacher - student`` under its covariance on normal images.

    An alternative to the cosine distance of Eq. 13, for one stage.

    Args:
        channels: of the stage.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("whitening", torch.eye(channels))

    @torch.jit.unused
    def statistics(self, *, part: int = 0) -> ResidualSums:
        """Make empty sums; the same for all parts."""
        return ResidualSums(len(self.mean))

    @torch.jit.unused
    def fit(self, statistics: Statistics) -> None:
        """Take mean and covariance from sums; see :class:`Expert`."""
        if not isinstance(statistics, ResidualSums) or statistics.count < 1:
            raise InputError(
                "A whitened residual needs normal locations in the foreground; got none."
            )
        mean = statistics.sums / statistics.count
        covariance = statistics.products / statistics.count - torch.outer(mean, mean)
        variances = covariance.diagonal()
        if not float(variances.max()) > 0:
            raise InputError(
                "Teacher and student differ everywhere alike on all normal images. Train first, and "
                "check that the images are not constant."
            )
        floor = torch.diag(variances.mean() * 1e-4 + 1e-4 * variances.clamp_min(0))
        factor = torch.linalg.cholesky(covariance + floor)
        identity = torch.eye(len(mean), dtype=factor.dtype)
        self.mean.copy_(mean)
        self.whitening.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))
        self.fitted.fill_(True)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return distances ``(B, 1, h, w)`` of a stage's residuals ``(B, C, h, w)``, the only entry."""
        rows = features[0].permute(0, 2, 3, 1) - self.mean
        return torch.sqrt((rows @ self.whitening.t()).square().sum(dim=-1)).unsqueeze(1)
