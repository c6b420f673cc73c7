"""A calibrated anomaly map as a label of three levels, which every viewer can show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiad_med.utils.errors import InputError

__all__ = ["SEVERITY_COLOURS", "SeverityLevel", "SeverityThresholds", "severity_levels"]


class SeverityLevel(IntEnum):
    """Label values of an anomaly map's levels; 0 is below them all."""

    LOW = 1
    MODERATE = 2
    HIGH = 3


SEVERITY_COLOURS = {
    SeverityLevel.LOW: (101, 21, 110),
    SeverityLevel.MODERATE: (212, 72, 66),
    SeverityLevel.HIGH: (250, 148, 7),
}
"""RGB of each level wherever it is shown: the map's colour where the level begins (see
:func:`multiad_med.visualize.colours.heat_colours`)."""


@dataclass(frozen=True)
class SeverityThresholds:
    """The lowest map value of each level.

    A calibrated map is ``m / (m + t)``, t being the threshold set on held-out normals (see
    :class:`multiad_med.networks.MultiAD`). The default levels begin where m is t, 1.5 t and 2 t.

    Attributes:
        low: of the lowest level; what lies below is normal.
        moderate: of the middle level.
        high: of the highest level.

    Raises:
        InputError: unless 0 < low < moderate < high < 1.
    """

    low: float = 1 / 2
    moderate: float = 3 / 5
    high: float = 2 / 3

    def __post_init__(self) -> None:
        if not 0 < self.low < self.moderate < self.high < 1:
            raise InputError(
                "Levels need 0 < low < moderate < high < 1, got "
                f"{self.low}, {self.moderate}, {self.high}."
            )

    @classmethod
    def above(cls, threshold: float) -> SeverityThresholds:
        """Return levels where m is 1, 1.5 and 2 times what a threshold of the map stands for.

        Args:
            threshold: of the calibrated map, in (0, 1); 0.5 gives the defaults.

        Raises:
            InputError: when it is not in (0, 1).
        """
        if not 0 < threshold < 1:
            raise InputError(f"A threshold of a map must lie in (0, 1), got {threshold}.")
        low, moderate, high = (n * threshold / (1 + (n - 1) * threshold) for n in (1, 1.5, 2))
        return cls(low, moderate, high)


def severity_levels(
    anomaly_map: NDArray[Any], thresholds: SeverityThresholds | None = None
) -> NDArray[np.uint8]:
    """Return the level of each value of a calibrated map: 0 for none, else a :class:`SeverityLevel`.

    Args:
        anomaly_map: of any shape.
        thresholds: the levels' lowest values, which belong to them.
    """
    levels = thresholds or SeverityThresholds()
    label = (anomaly_map >= levels.low).astype(np.uint8)
    for threshold in (levels.moderate, levels.high):
        label += anomaly_map >= threshold
    return label
