"""Slices as radiologists look at them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["radiological_view"]


def radiological_view(array: NDArray[Any], *, upright: bool = False) -> NDArray[Any]:
    """Turn axial slices as radiologists look at them: front above, the patient's right on the left.

    Args:
        array: ``(..., X, Y)`` in RAS+, X running to the patient's right and Y to the front.
        upright: whether it is an image ``(..., rows, columns)``, which stays as it is.

    Returns:
        A view of the array, ``(..., rows, columns)``.
    """
    return array if upright else np.swapaxes(array[..., ::-1, ::-1], -1, -2)
