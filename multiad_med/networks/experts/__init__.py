"""Experts: statistics of normal features, fitted in one pass, that say how far others are from them."""

from enum import StrEnum

from multiad_med.networks.experts.expert import Expert, Statistics
from multiad_med.networks.experts.nearest_normal import NearestNormal
from multiad_med.networks.experts.position_gaussian import PositionGaussian
from multiad_med.networks.experts.reservoir import Reservoir
from multiad_med.networks.experts.whitened_residual import WhitenedResidual

__all__ = [
    "EXPERTS",
    "Expert",
    "ExpertKind",
    "NearestNormal",
    "PositionGaussian",
    "Reservoir",
    "Statistics",
    "WhitenedResidual",
]


class ExpertKind(StrEnum):
    """An expert beside the student."""

    POSITION_GAUSSIAN = "position_gaussian"
    """See :class:`PositionGaussian`; for aligned images."""
    NEAREST_NORMAL = "nearest_normal"
    """See :class:`NearestNormal`."""


EXPERTS: dict[ExpertKind, type[NearestNormal] | type[PositionGaussian]] = {
    ExpertKind.POSITION_GAUSSIAN: PositionGaussian,
    ExpertKind.NEAREST_NORMAL: NearestNormal,
}
"""Experts by name."""
