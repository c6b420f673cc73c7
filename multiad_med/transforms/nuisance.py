"""Changes of an image that are no anomaly: light, a slight blur, a shift by a few pixels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F

from multiad_med.utils.errors import InputError

__all__ = ["EXTREMES", "LIGHT", "Nuisance", "NuisanceChange"]

_GAIN = 0.1
_GAMMA = 0.1
_SIGMA = 0.8
_SHIFT = 3


class Nuisance(StrEnum):
    """A change that must not make a normal image look anomalous."""

    DARKER = "darker"
    """All values times 0.9."""
    BRIGHTER = "brighter"
    """All values times 1.1, clipped to 1."""
    GAMMA_UP = "gamma up"
    """Values to the power of 1.1: darker, middle values most."""
    GAMMA_DOWN = "gamma down"
    """Values to the power of 0.9: brighter, middle values most."""
    BLUR = "blur"
    """Smoothed with a standard deviation of 0.8 pixels."""
    SHIFT = "shift"
    """Moved by 3 pixels along both axes."""


LIGHT = (Nuisance.DARKER, Nuisance.BRIGHTER, Nuisance.GAMMA_UP, Nuisance.GAMMA_DOWN)
"""Those that change the light."""


@dataclass(frozen=True)
class NuisanceChange:
    """A change of light, focus and position; the defaults change nothing.

    Attributes:
        gain: that values are multiplied by.
        gamma: power that values are raised to.
        sigma: standard deviation of a Gaussian blur, in pixels.
        shift: by how many pixels the image moves along H and W; the border is continued.

    Raises:
        InputError: when the gain or the gamma is not positive, or sigma is negative.
    """

    gain: float = 1.0
    gamma: float = 1.0
    sigma: float = 0.0
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.gain <= 0 or self.gamma <= 0 or self.sigma < 0:
            raise InputError(
                f"gain and gamma must be positive and sigma 0 or more, got {self.gain}, {self.gamma} and "
                f"{self.sigma}."
            )

    @classmethod
    def draw_light(cls) -> Self:
        """Draw a gain and a gamma, 0.9 to 1.1 each, from torch's global generator."""
        gain, gamma = (2 * torch.rand(2) - 1).tolist()
        return cls(gain=1 + _GAIN * gain, gamma=1 + _GAMMA * gamma)

    def image(self, image: Tensor) -> Tensor:
        """Change an image ``(C, H, W)`` in [0, 1]."""
        changed = (self.gain * image**self.gamma).clamp(0, 1)
        if self.sigma:
            smooth = GaussianFilter(2, self.sigma).to(image.device)
            pad = 4  # the filter takes what lies outside as 0
            changed = F.pad(changed[None], (pad,) * 4, mode="replicate")
            changed = smooth(changed)[0, :, pad:-pad, pad:-pad]
        return self.moved(changed)

    def moved(self, image: Tensor) -> Tensor:
        """Move ``(C, H, W)``, such as a foreground, and leave its values."""
        rows, columns = (
            (torch.arange(length, device=image.device) - step).clamp(0, length - 1)
            for length, step in zip(image.shape[1:], self.shift, strict=True)
        )
        return image[:, rows][:, :, columns]


EXTREMES = {
    Nuisance.DARKER: NuisanceChange(gain=1 - _GAIN),
    Nuisance.BRIGHTER: NuisanceChange(gain=1 + _GAIN),
    Nuisance.GAMMA_UP: NuisanceChange(gamma=1 + _GAMMA),
    Nuisance.GAMMA_DOWN: NuisanceChange(gamma=1 - _GAMMA),
    Nuisance.BLUR: NuisanceChange(sigma=_SIGMA),
    Nuisance.SHIFT: NuisanceChange(shift=(_SHIFT, _SHIFT)),
}
"""Each nuisance at the end of its range, by itself."""
