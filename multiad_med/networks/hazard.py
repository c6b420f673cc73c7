"""Hazards: distances of any kind on one scale, by how rare they are on normal images."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.utils.errors import InputError

__all__ = ["Hazard"]

KNOTS = 32
_COMMON = 0.8
_RAREST = 1e-3
"""Share of normal distances beyond the last knot, where the tail begins."""
_FEWEST = 10
"""Normal distances that the tail has at least."""


class Hazard(nn.Module):
    """Turns a distance d into ``-log S(d)``, S being the share of normal distances of d and more.

    Hazards of normal distances are exponential with mean 1, whatever the distance is, so that those of
    different experts can be added: ``1 - exp(-sum of hazards)`` is the Noisy-OR of the experts'
    probabilities ``1 - S``. The hazard is linear between knots at quantiles of the normal distances, and
    goes on beyond the last one as an exponential tail with the mean excess there. It is 0 below the
    smallest normal distance, strictly increases above it, and never ends.

    What is found is two buffers, so that it is saved and exported.
    """

    knots: Tensor
    slopes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.zeros(KNOTS))
        self.register_buffer("slopes", torch.zeros(KNOTS))
        self.slopes[-1] = 1.0  # before it is fitted, the distance itself

    @torch.jit.unused
    def fit(self, distances: Tensor) -> None:
        """Take the survival function of normal distances.

        Args:
            distances: of held-out normal images, any shape, at least two different ones.

        Raises:
            InputError: when they are fewer, or not finite.
        """
        values = distances.detach().flatten().double().sort().values
        if not values.isfinite().all() or len(values) < 2 or values[0] == values[-1]:
            raise InputError(
                f"{len(values)} distances on held-out normal images do not differ, or are not finite. "
                "Train first, and check that the images are not constant."
            )
        rarest = max(_RAREST, _FEWEST / len(values))
        # Half of the knots divide the common distances evenly, half of them the rare ones by hazard.
        common = torch.linspace(0, _COMMON, KNOTS // 2, dtype=torch.float64)
        bounds = (-math.log1p(-_COMMON), -math.log(min(rarest, (1 - _COMMON) / 2)))
        rare = torch.linspace(*bounds, KNOTS // 2 + 1, dtype=torch.float64)
        hazards = torch.cat([-torch.log1p(-common), rare[1:]])
        places = (-torch.expm1(-hazards) * (len(values) - 1)).round().long()
        knots = values[places]
        # Equal distances have one knot, the highest of theirs: what is as normal has hazard 0.
        smallest = 1e-7 * float(values[-1] - values[0])
        last = torch.ones(KNOTS, dtype=torch.bool)
        last[:-1] = knots[1:] - knots[:-1] > smallest
        knots, hazards = knots[last], hazards[last]
        slopes = (hazards[1:] - hazards[:-1]) / (knots[1:] - knots[:-1])
        beyond = values[values > knots[-1]] - knots[-1]
        excess = float(beyond.mean()) if len(beyond) else 0.0
        tail = 1 / excess if excess > smallest else float(slopes[-1])
        slopes = torch.cat([slopes, slopes.new_tensor([tail])])
        # Where there are fewer knots, the first is repeated, and its stretches are empty.
        self.knots.fill_(float(knots[0]))
        self.knots[-len(knots) :] = knots.to(self.knots)
        self.slopes.zero_()
        self.slopes[-len(slopes) :] = slopes.to(self.slopes)

    def forward(self, distances: Tensor) -> Tensor:
        """Return hazards ``(B, 1, h, w)``, 0 and more, of distances of that shape."""
        widths = torch.cat([self.knots[1:] - self.knots[:-1], self.knots.new_full([1], torch.inf)])
        # The sum of what each stretch adds, all of one sign: in float32 the order stays.
        covered = torch.minimum(F.relu(distances.unsqueeze(-1) - self.knots), widths)
        return (covered * self.slopes).sum(dim=-1)
