"""What is shown black and white."""

from __future__ import annotations

import numpy as np
import pytest

from multiad_med.visualize.colours import intensity_range


def test_the_range_leaves_out_the_background_and_the_brightest() -> None:
    values = np.arange(1001, dtype=np.int16).repeat(2)
    values[:500] = 0  # background does not move the quantile
    assert intensity_range(values - 1000) == (
        -1000,
        pytest.approx(-1000 + 250 + 750 * 0.995, abs=1),
    )


def test_a_large_volume_has_the_range_of_a_sample_of_it() -> None:
    values = np.random.default_rng(0).random(3_000_000, dtype=np.float32)
    assert intensity_range(values)[1] == pytest.approx(0.995, abs=1e-3)


def test_equal_values_are_black() -> None:
    assert intensity_range(np.full((4, 5), 7.5, np.float32)) == (7.5, 8.5)
