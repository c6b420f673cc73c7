"""Experts: statistics of normal features, fitted in one pass, that say how far others are from them."""

from enum import StrEnum

from multiad_med.networks.experts.expert import Expert, Statistics
from multiad_med.networks.experts.nearest_normal import NearestNormal
from multiad_med.networks.experts.position_gaussian import PositionGaussian
from multiad_med.networks.experts.reservoir import Reservoir
from multiad_med.networks.experts.token_gaussian import TokenGaussian
from multiad_med.networks.experts.token_neighbours import TokenNeighbours
from multiad_med.networks.experts.whitened_residual import WhitenedResidual

__all__ = [
    "EXPERTS",
    "Expert",
    "ExpertKind",
    "NearestNormal",
    "PositionGaussian",
    "Reservoir",
    "Statistics",
    "TokenGaussian",
    "TokenNeighbours",
    "WhitenedResidual",
]


class ExpertKind(StrEnum):
    """An expert beside the student."""

    POSITION_GAUSSIAN = "position_gaussian"
    """See :class:`PositionGaussian`; for aligned images."""
    NEAREST_NORMAL = "nearest_normal"
    """See :class:`NearestNormal`."""
    TOKEN_NEIGHBOURS = "token_neighbours"
    """See :class:`TokenNeighbours`; of the whole image."""
    TOKEN_GAUSSIAN = "token_gaussian"
    """See :class:`TokenGaussian`; of the whole image."""


EXPERTS: dict[
    ExpertKind,
    type[NearestNormal] | type[PositionGaussian] | type[TokenNeighbours] | type[TokenGaussian],
] = {
    ExpertKind.POSITION_GAUSSIAN: PositionGaussian,
    ExpertKind.NEAREST_NORMAL: NearestNormal,
    ExpertKind.TOKEN_NEIGHBOURS: TokenNeighbours,
    ExpertKind.TOKEN_GAUSSIAN: TokenGaussian,
}
"""Experts by name."""
