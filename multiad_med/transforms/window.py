"""Hounsfield windows: which values of a CT are mapped to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from multiad_med.transforms.memory_order import empty_stored, stored_order, with_meta_of
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["HounsfieldWindow", "HounsfieldWindowd", "Window"]


class Window(StrEnum):
    """Windows in common use, by name; :attr:`limits` gives them in HU."""

    LIVER = "liver"
    ABDOMEN = "abdomen"
    LUNG = "lung"
    BRAIN = "brain"
    BONE = "bone"

    @property
    def limits(self) -> tuple[float, float]:
        """The values in HU that become 0 and 1: level - width / 2 and level + width / 2."""
        level, width = _LEVEL_WIDTH[self]
        return level - width / 2, level + width / 2


_LEVEL_WIDTH = {
    Window.LIVER: (30.0, 150.0),
    Window.ABDOMEN: (40.0, 400.0),
    Window.LUNG: (-600.0, 1500.0),
    Window.BRAIN: (40.0, 80.0),
    Window.BONE: (400.0, 1800.0),
}


def _limits(window: Window | str | Sequence[float]) -> tuple[float, float]:
    if isinstance(window, str):
        try:
            return Window(window).limits
        except ValueError:
            raise InputError(
                f"Unknown window {window!r}; choose one of {[w.value for w in Window]} or give two "
                "values in HU, such as [-200, 250]."
            ) from None
    if len(window) != 2 or not window[0] < window[1]:
        raise InputError(f"A window is two ascending values in HU, got {list(window)}.")
    return float(window[0]), float(window[1])


class HounsfieldWindow(Transform):
    """Map HU linearly to [0, 1] between a window's limits; several windows become channels.

    Args:
        windows: names of :class:`Window` or pairs of values in HU; one channel each.
    """

    def __init__(self, windows: Sequence[Window | str | Sequence[float]] = ("abdomen",)) -> None:
        if isinstance(windows, str):
            windows = [windows]
        elif len(windows) == 2 and all(isinstance(w, (int, float)) for w in windows):
            windows = [windows]  # type: ignore[list-item]
        if not windows:
            raise InputError("At least one window is needed.")
        self.limits = [_limits(window) for window in windows]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Window ``(C, ...)`` in HU; float32 in [0, 1].

        One channel gives ``(windows, ...)``; several, such as neighbouring slices, are each seen
        through the one window.

        Raises:
            InputError: when there are several channels and several windows.
        """
        count, windows = image.shape[0], len(self.limits)
        if count > 1 and windows > 1:
            raise InputError(
                f"Several windows take one channel in HU, got {count}. Choose one window, or no "
                "neighbouring slices."
            )
        plain = plain_tensor(image)
        order = stored_order(plain[0])
        result = empty_stored(plain[0], torch.float32, channels=max(count, windows))
        for index, channel in enumerate(result):
            hounsfield = plain[index if count > 1 else 0].permute(order)
            low, high = self.limits[index if windows > 1 else 0]
            stored = channel.permute(order)
            torch.sub(hounsfield, low, out=stored).mul_(1 / (high - low)).clamp_(0, 1)
        return with_meta_of(result, image)


class HounsfieldWindowd(MapTransform):
    """Dictionary form of :class:`HounsfieldWindow`."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        windows: Sequence[Window | str | Sequence[float]] = ("abdomen",),
    ) -> None:
        super().__init__(keys)
        self.window = HounsfieldWindow(windows)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Window each key's volume ``(1, X, Y, Z)`` in HU."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.window(result[key])
        return result
