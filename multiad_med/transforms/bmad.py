"""BMAD's own preparation of liver CT, faults included, to compare with its published metrics."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from numpy.typing import NDArray

from multiad_med.utils.tensors import plain_tensor

__all__ = ["BmadLiver", "BmadLiverd"]


def _equalise(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Equalise the histogram of all but black; lift results below 150 to the range 30 to 150."""
    counts = np.bincount(grey.ravel(), minlength=256).astype(float)
    counts[0] = 0
    if not counts.any():
        return grey
    table = np.floor(255 * np.cumsum(counts / counts.sum()))
    lifted = (table > 0) & (table < 150)
    table[lifted] = np.floor(table[lifted] / 150 * 120 + 30)
    return table.astype(np.uint8)[grey]


class BmadLiver(Transform):
    """Prepare each slice as BMAD's script does.

    It is clipped to a window in HU, if one is given, stretched from its minimum to its maximum over 8
    bits, blackened but for the liver, flipped along the first axis, and equalised. BMAD clips LiTS to
    [-200, 250] and BTCV not at all, so that normal and test slices differ by their preparation alone.

    Args:
        window: lowest and highest HU, or none.
    """

    def __init__(self, *, window: tuple[float, float] | None = None) -> None:
        self.window = window

    def __call__(  # type: ignore[override]
        self, image: torch.Tensor, liver: torch.Tensor
    ) -> torch.Tensor:
        """Return slices ``(1, X, Y, Z)`` in [0, 1] of a CT ``(1, X, Y, Z)`` in HU and its liver mask."""
        volume = plain_tensor(image)[0].numpy(force=True)
        mask = plain_tensor(liver)[0].numpy(force=True) > 0
        if self.window is not None:
            volume = np.clip(volume, *self.window)
        result = np.zeros((1, *volume.shape), np.float32)
        for z in range(volume.shape[-1]):
            raw = volume[..., z].astype(np.float64)
            width = raw.max() - raw.min()
            unit = (raw - raw.min()) / (width or 1.0)
            grey = np.minimum(unit * 256, 255).astype(np.uint8) * mask[..., z]
            result[0, ..., z] = _equalise(grey[::-1]) / np.float32(255)
        return torch.from_numpy(result)


class BmadLiverd(MapTransform):
    """Dictionary form of :class:`BmadLiver`: image, liver and lesion masks, all flipped.

    Args:
        keys: the CT, one key.
        mask_key: the liver.
        label_key: the lesions, where present.
        window: of the studies whose ``split`` is not training.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        mask_key: str = "foreground",
        label_key: str = "label",
        window: tuple[float, float] = (-200.0, 250.0),
    ) -> None:
        super().__init__(keys)
        self.mask_key = mask_key
        self.label_key = label_key
        self.clipped = BmadLiver(window=(float(window[0]), float(window[1])))
        self.unclipped = BmadLiver()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Prepare the item's slices."""
        result = dict(data)
        prepare = self.unclipped if result.get("split") == "training" else self.clipped
        for key in self.key_iterator(result):
            result[key] = prepare(result[key], result[self.mask_key])
        for key in (self.mask_key, self.label_key):
            if key in result:
                result[key] = plain_tensor(result[key]).flip(1)
        return result
