"""From teacher and student features to one anomaly map (paper section 3.4, Eq. 13-15)."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Self

import torch
from monai.networks.layers import gaussian_1d
from torch import Tensor, nn
from torch.nn import functional as F

from multiad_med.networks.cosine import cosine_similarity
from multiad_med.networks.hazard import Hazard
from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = ["FusionMode", "GaussianSmoothing", "MultiScaleFusion", "cosine_distance_maps"]

_QUANTILES = (0.9, 0.995)


class FusionMode(StrEnum):
    """How distance maps become one map."""

    HAZARD = "hazard"
    """Sum of hazards, a Noisy-OR: see :class:`multiad_med.networks.Hazard`."""
    ZSCORE = "zscore"
    """Sum of positive z-scores: the paper's Psi (Eq. 14) with statistics of held-out normal maps."""
    QUANTILE = "quantile"
    """Like ``zscore``, with the normal maps' 90 % quantile as zero and the 99.5 % quantile as one."""
    SUM = "sum"
    """Plain sum of the distances (the ablation "without fusion")."""
    PRODUCT = "product"
    """Product of the distances, as in STFPM."""


def cosine_distance_maps(teacher: list[Tensor], student: list[Tensor]) -> list[Tensor]:
    """Return cosine distance of teacher and student at every location, per stage (Eq. 13).

    Args:
        teacher: feature maps ``(B, C_i, h_i, w_i)``.
        student: feature maps of the same shapes.

    Returns:
        Maps ``(B, 1, h_i, w_i)`` in [0, 2].
    """
    maps: list[Tensor] = []
    for i, features in enumerate(teacher):
        cosine = cosine_similarity(features, student[i], dim=1)
        maps.append((1.0 - cosine).unsqueeze(1))
    return maps


class GaussianSmoothing(nn.Module):
    """Separable Gaussian over an image, with the border value continued outside.

    MONAI's ``GaussianFilter`` does the same but cannot be compiled to TorchScript. Along each side,
    enlarging and smoothing are one matrix, much faster on a CPU than convolutions of one channel.

    Args:
        sigma: standard deviation in pixels; 0 switches the smoothing off.
    """

    kernel: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if sigma < 0:
            raise InputError(f"sigma must be at least 0 pixels, got {sigma}.")
        kernel = (
            gaussian_1d(torch.tensor(float(sigma)), truncated=4.0, approx="sampled")
            if sigma
            else torch.ones(1)
        )
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)
        self.radius: int = len(kernel) // 2

    def forward(self, x: Tensor, size: list[int]) -> Tensor:
        """Enlarge ``(B, 1, h, w)`` bilinearly to ``(B, 1, *size)`` and smooth it."""
        return self._matrix(x.shape[2], size[0]) @ x @ self._matrix(x.shape[3], size[1]).t()

    def _matrix(self, length: int, size: int) -> Tensor:
        """Enlarges and smooths columns, ``(size, length)``: what becomes of the identity's."""
        x = torch.eye(length, device=self.kernel.device, dtype=self.kernel.dtype)[None, None]
        x = F.interpolate(x, size=[size, length], mode="bilinear", align_corners=False)
        x = F.pad(x, [0, 0, self.radius, self.radius], mode="replicate")
        return F.conv2d(x, self.kernel.view(1, 1, -1, 1))[0, 0]


def _note_used(module: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(module, MultiScaleFusion)
    module.used = [bool(weight) for weight in module.weights.tolist()]


class MultiScaleFusion(nn.Module):
    """Fuses distance maps of stages and experts into one smoothed map (Eq. 14 and 15).

    The paper passes each one-channel map through a 1x1 convolution, batch norm and ReLU, and
    trains none of them. A 1x1 convolution of weight 1 on one channel is the identity, so what
    remains is batch norm with statistics of normal maps and ReLU: the positive z-score of each
    stage. The statistics are set by :meth:`fit` after training and live in the state dict, as does
    how much each map counts (``weights``), so that a model cannot be used with others than it was
    calibrated for.

    Args:
        weights: of each map; one of weight 0 does not enter, and may be empty.
        tokens: numbers, from 0, of the maps that say one thing of the whole image, ``(B, 1, 1, 1)``.
            They are fused apart, by :meth:`whole_image`.
        mode: see :class:`FusionMode`.
        sigma: standard deviation of the final Gaussian, in pixels of the output.
    """

    weights: Tensor

    def __init__(
        self,
        weights: Sequence[float],
        *,
        tokens: Sequence[int] = (),
        mode: FusionMode | str = FusionMode.ZSCORE,
        sigma: float = 4.0,
    ) -> None:
        super().__init__()
        self.whole: list[bool] = [number in tokens for number in range(len(weights))]
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.used: list[bool] = [bool(weight) for weight in weights]
        self.register_load_state_dict_post_hook(_note_used)
        self.mode = choose(FusionMode, mode, what="mode")
        self.standardises: bool = self.mode not in (FusionMode.SUM, FusionMode.PRODUCT)
        self.multiplies: bool = self.mode is FusionMode.PRODUCT
        self.levels = nn.ModuleList(
            Hazard() if self.mode is FusionMode.HAZARD else nn.BatchNorm2d(1, eps=0.0, affine=False)
            for _ in weights
        )
        self.smoothing = GaussianSmoothing(sigma)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the statistics change by calibration alone."""
        return super().train(False)

    @torch.jit.unused
    def fit(self, distances: Sequence[Tensor]) -> None:
        """Set what each map's distances are compared with.

        Args:
            distances: of each map, values on held-out normal images, any shape.

        Raises:
            InputError: when the distances of a map do not differ, as where it is the same everywhere on
                normal images.
        """
        if not self.standardises:
            return
        for number, (level, values) in enumerate(zip(self.levels, distances, strict=True), start=1):
            try:
                if isinstance(level, Hazard):
                    level.fit(values)
                else:
                    shift, scale = self._shift_and_scale(values)
                    level.get_buffer("running_mean").fill_(shift)
                    level.get_buffer("running_var").fill_(scale**2)
            except InputError as error:
                raise InputError(f"Map {number} of {len(self.levels)}: {error}") from error

    def _shift_and_scale(self, values: Tensor) -> tuple[float, float]:
        """Mean and deviation, or two quantiles, of distances."""
        values = values.flatten()
        if self.mode is FusionMode.QUANTILE:
            low, high = (
                float(values.kthvalue(max(1, math.ceil(q * values.numel()))).values)
                for q in _QUANTILES
            )
            shift, scale = low, high - low
        else:
            shift, scale = float(values.double().mean()), float(values.double().std())
        if not 0 < scale < float("inf"):
            raise InputError(
                f"its distances on held-out normal images have a spread of {scale}; it must be positive. "
                "Train first, and check that the images are not constant."
            )
        return shift, scale

    def forward(self, maps: list[Tensor], size: list[int]) -> Tensor:
        """Fuse maps ``(B, 1, h_i, w_i)`` into ``(B, 1, *size)``, 0 and more."""
        smooth = torch.zeros(1, device=maps[0].device, dtype=maps[0].dtype)
        for x in self._fused(maps, size, False):
            smooth = smooth + self.smoothing(x, size)
        return smooth

    @torch.jit.export
    def whole_image(self, maps: list[Tensor]) -> Tensor:
        """Fuse those ``(B, 1, 1, 1)`` of the maps that are of the whole image, 0 and more."""
        fused = self._fused(maps, [1, 1], True)
        return fused[0] if len(fused) > 0 else maps[0].new_full([1], float(self.multiplies))

    def _fused(self, maps: list[Tensor], size: list[int], whole: bool) -> list[Tensor]:
        """Sums, or products, of the maps of each resolution; products are of the given size."""
        fused: list[Tensor] = []
        for i, level in enumerate(self.levels):
            if self.whole[i] == whole and self.used[i]:
                x = maps[i]
                if self.standardises:
                    x = F.relu(level(x))
                if not self.multiplies:
                    x = x * self.weights[i]
                elif not whole:
                    x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
                _join(fused, x, self.multiplies)
        return fused


def _join(fused: list[Tensor], x: Tensor, multiplies: bool) -> None:
    """Add a map to that of its resolution, or multiply it; put it at the end where there is none."""
    for i, other in enumerate(fused):
        if other.shape == x.shape:
            fused[i] = other * x if multiplies else other + x
            return
    fused.append(x)
