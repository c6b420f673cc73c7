"""Levels of a map begin at their thresholds, which stand for multiples of the calibrated one."""

from __future__ import annotations

import numpy as np
import pytest

from multiad_med.inference.severity import (
    SEVERITY_COLOURS,
    SeverityLevel,
    SeverityThresholds,
    severity_levels,
)
from multiad_med.visualize.colours import heat_colours


def test_each_value_has_the_severity_level_that_it_reaches() -> None:
    values = np.float32([0, 0.49, 0.5, 0.59, 0.61, 0.66, 0.67, 0.99])
    levels = severity_levels(values)
    assert levels.dtype == np.uint8
    assert levels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [int(level) for level in SeverityLevel] == [1, 2, 3]


def test_default_severity_levels_begin_at_1_1_5_and_2_times_the_calibrated_threshold() -> None:
    threshold = 0.02
    distances = threshold * np.array([0.9, 1.1, 1.4, 1.6, 1.9, 2.1])
    assert severity_levels(distances / (distances + threshold)).tolist() == [0, 1, 1, 2, 2, 3]
    above = SeverityThresholds.above(0.5)
    np.testing.assert_allclose(
        [above.low, above.moderate, above.high], [1 / 2, 3 / 5, 2 / 3], rtol=1e-12
    )


def test_severity_levels_above_another_threshold_keep_their_multiples() -> None:
    # 0.2 is m = t / 4, so the levels begin at m = t / 4, 3 t / 8, t / 2.
    levels = SeverityThresholds.above(0.2)
    np.testing.assert_allclose([levels.low, levels.moderate, levels.high], [0.2, 3 / 11, 1 / 3])


@pytest.mark.parametrize(
    "values", [(0.0, 0.5, 0.6), (0.5, 0.5, 0.6), (0.5, 0.7, 0.6), (0.5, 0.6, 1.0)]
)
def test_thresholds_out_of_order_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="0 < low < moderate < high < 1"):
        SeverityThresholds(*values)


@pytest.mark.parametrize("threshold", [0.0, 1.0, float("nan")])
def test_a_threshold_outside_the_map_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        SeverityThresholds.above(threshold)


def test_a_severity_level_has_the_colour_that_images_give_its_lowest_value() -> None:
    default = SeverityThresholds()
    values = np.float32([default.low, default.moderate, default.high])
    colours = (255 * heat_colours(values)[:, :3]).round().astype(int)
    assert [list(SEVERITY_COLOURS[level]) for level in SeverityLevel] == colours.tolist()
