"""The one turn from the axes of the body to rows and columns."""

from __future__ import annotations

import numpy as np

from multiad_med.transforms import radiological_view


def test_radiological_view_has_front_above_and_right_on_the_left() -> None:
    # Axes of RAS: first to the patient's right, second to the front.
    ras = np.zeros((4, 6))
    ras[3, 5] = 1  # right and front
    ras[0, 5] = 2  # left and front
    seen = radiological_view(ras)
    assert seen.shape == (6, 4)
    assert seen[0, 0] == 1
    assert seen[0, -1] == 2
    assert radiological_view(ras, upright=True) is ras
