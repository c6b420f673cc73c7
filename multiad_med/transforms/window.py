"""Hounsfield windows: what of a CT is shown, and mapped to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from multiad_med.transforms.memory import as_stored, empty_stored, stored_order, with_meta_of
from multiad_med.transforms.quantiles import quantiles
from multiad_med.utils.errors import InputError

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

    Contrast agent, its phase and the scanner move a whole organ by tens of HU. With ``centre`` the
    windows move along with the organ, as if its median had been ``centre``.

    Args:
        windows: names of :class:`Window` or pairs of values in HU; one channel each.
        centre: HU at which the windows have the organ's median; none leaves HU as they are.

    Raises:
        InputError: on an unknown window, or a centre that is no number.
    """

    def __init__(
        self,
        windows: Sequence[Window | str | Sequence[float]] = ("abdomen",),
        *,
        centre: float | None = None,
    ) -> None:
        if isinstance(windows, str):
            windows = [windows]
        elif len(windows) == 2 and all(isinstance(w, (int, float)) for w in windows):
            windows = [windows]  # type: ignore[list-item]
        if not windows:
            raise InputError("At least one window is needed.")
        if centre is not None and (
            isinstance(centre, bool) or not isinstance(centre, (int, float))
        ):
            raise InputError(f"centre is a value in HU, such as 100, or null, got {centre!r}.")
        self.limits = [_limits(window) for window in windows]
        self.centre = centre

    def __call__(  # type: ignore[override]
        self, image: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Window ``(C, ...)`` in HU; float32 in [0, 1].

        One channel gives ``(windows, ...)``; several, such as neighbouring slices, are each seen
        through the one window.

        Args:
            image: in HU.
            mask: the organ ``(1, ...)``, above 0 inside; what ``centre`` needs.

        Raises:
            InputError: when there are several channels and several windows, or a centre but no organ.
        """
        count, windows = image.shape[0], len(self.limits)
        if count > 1 and windows > 1:
            raise InputError(
                f"Several windows take one channel in HU, got {count}. Choose one window, or no "
                "neighbouring slices."
            )
        plain = torch.as_tensor(image).as_subclass(torch.Tensor)
        order = stored_order(plain[0])
        shift = 0.0 if self.centre is None else self._median(plain, mask) - self.centre
        result = empty_stored(plain[0], torch.float32, channels=max(count, windows))
        for index, channel in enumerate(result):
            hounsfield = plain[index if count > 1 else 0].permute(order)
            low, high = self.limits[index if windows > 1 else 0]
            stored = channel.permute(order)
            torch.sub(hounsfield, low + shift, out=stored).mul_(1 / (high - low)).clamp_(0, 1)
        return with_meta_of(result, image)

    def _median(self, image: torch.Tensor, mask: torch.Tensor | None) -> float:
        """The organ's, in HU; of neighbouring slices as channels, in the middle one."""
        if mask is None or not bool((as_stored(mask) > 0).any()):
            raise InputError("centre needs an organ, and its mask is missing or empty.")
        inside = torch.as_tensor(mask).as_subclass(torch.Tensor)[0] > 0
        (median,) = quantiles(image[len(image) // 2][inside], (0.5,))
        return median


class HounsfieldWindowd(MapTransform):
    """Dictionary form of :class:`HounsfieldWindow`.

    Args:
        keys: volumes in HU.
        windows, centre: see :class:`HounsfieldWindow`.
        mask_key: mask of the organ that ``centre`` is of.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        windows: Sequence[Window | str | Sequence[float]] = ("abdomen",),
        centre: float | None = None,
        mask_key: str = "foreground",
    ) -> None:
        super().__init__(keys)
        self.window = HounsfieldWindow(windows, centre=centre)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Window each key's volume ``(1, X, Y, Z)`` in HU."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.window(result[key], result.get(self.mask_key))
        return result
