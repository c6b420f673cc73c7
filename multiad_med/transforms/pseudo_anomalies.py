"""Pseudo-anomalies: what a detector should find, put into images that have no anomaly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F

from multiad_med.utils.choose import choose
from multiad_med.utils.errors import InputError

__all__ = ["PseudoAnomaly", "put_pseudo_anomalies"]

_DELTA = (0.15, 0.4)
_NOISE = 0.15
_OPACITY = (0.5, 0.9)
_CELLS = 4


class PseudoAnomaly(StrEnum):
    """What is put into an image."""

    FOREIGN_PATCH = "foreign patch"
    """A square of another image, from another place (CutPaste: Li et al., CVPR 2021)."""
    PERLIN_BLEND = "Perlin blend"
    """Another image, half transparent, in a ragged shape of Perlin noise (DRAEM: Zavrtanik et al.,
    ICCV 2021)."""
    INTENSITY = "intensity"
    """A disc that is brighter or darker by 0.15 to 0.4."""
    BLUR = "blur"
    """A disc that is smeared by a Gaussian of a quarter of its diameter, 1 pixel at least."""
    NOISE = "fine noise"
    """A disc of noise from pixel to pixel, with a standard deviation of 0.15."""


@dataclass(frozen=True)
class _Box:
    """A square inside an image."""

    top: int
    left: int
    side: int

    def of(self, image: Tensor) -> Tensor:
        """Return what of ``(C, H, W)`` lies inside, as a view."""
        return image[:, self.top : self.top + self.side, self.left : self.left + self.side]


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _box(foreground: Tensor, side: int, generator: torch.Generator) -> _Box:
    """Return a box around a random foreground pixel of ``(1, H, W)``, moved into the image."""
    inside = foreground[0].nonzero()
    chosen = int(torch.randint(len(inside), (), generator=generator))
    top, left = (
        min(max(int(centre) - side // 2, 0), length - side)
        for centre, length in zip(inside[chosen], foreground.shape[1:], strict=True)
    )
    return _Box(top, left, side)


def _disc(side: int) -> Tensor:
    """Return a disc ``(1, side, side)`` of that diameter."""
    axis = torch.arange(side) - (side - 1) / 2
    return (axis[:, None] ** 2 + axis**2 <= (side / 2) ** 2)[None]


def _perlin(side: int, generator: torch.Generator) -> Tensor:
    """Return Perlin noise ``(1, side, side)`` around 0, up to 4 by 4 cells (Perlin, SIGGRAPH 1985)."""
    cells = min(_CELLS, side)
    angles = 2 * torch.pi * torch.rand(cells + 1, cells + 1, generator=generator)
    gradients = torch.stack([angles.sin(), angles.cos()], dim=-1)
    position = (torch.arange(side) + 0.5) * cells / side
    cell, part = position.long(), position.frac()
    fade = part**3 * (part * (6 * part - 15) + 10)

    def corner(down: int, right: int) -> Tensor:
        gradient = gradients[cell + down][:, cell + right]
        return gradient[..., 0] * (part - down)[:, None] + gradient[..., 1] * (part - right)

    upper, lower = (torch.lerp(corner(d, 0), corner(d, 1), fade[None]) for d in (0, 1))
    return torch.lerp(upper, lower, fade[:, None])[None]


def _smeared(image: Tensor, box: _Box) -> Tensor:
    sigma = max(1.0, box.side / 4)
    reach = int(4 * sigma + 1)
    around = _Box(max(box.top - reach, 0), max(box.left - reach, 0), box.side + 2 * reach)
    # The filter takes what lies outside as 0.
    padded = F.pad(around.of(image)[None], (reach,) * 4, mode="replicate")
    smooth = GaussianFilter(2, sigma)(padded)[0, :, reach:, reach:]
    return _Box(box.top - around.top, box.left - around.left, box.side).of(smooth)


def _brighter_or_darker(patch: Tensor, generator: torch.Generator) -> Tensor:
    """Brighten or darken a patch at random; the other way where it would leave [0, 1]."""
    delta = _uniform(*_DELTA, generator) * (1 if _uniform(-1, 1, generator) > 0 else -1)
    return patch + (delta if 0 <= float(patch.mean()) + delta <= 1 else -delta)


def _put(
    image: Tensor,
    foreground: Tensor,
    source: tuple[Tensor, Tensor],
    kind: PseudoAnomaly,
    side: int,
    generator: torch.Generator,
) -> Tensor:
    """Change ``image (C, H, W)`` in place; return the mask ``(1, H, W)`` of what was changed.

    Args:
        source: image that foreign content comes from, and its foreground.
    """
    box = _box(foreground, side, generator)
    patch, inside = box.of(image), box.of(foreground)
    shape = _disc(side)
    if kind in (PseudoAnomaly.FOREIGN_PATCH, PseudoAnomaly.PERLIN_BLEND):
        foreign = _box(source[1], side, generator).of(source[0])
    if kind is PseudoAnomaly.FOREIGN_PATCH:
        shape, content = torch.ones_like(shape), foreign
    elif kind is PseudoAnomaly.PERLIN_BLEND:
        shape = _perlin(side, generator) > 0
        content = torch.lerp(patch, foreign, _uniform(*_OPACITY, generator))
    elif kind is PseudoAnomaly.INTENSITY:
        content = _brighter_or_darker(patch, generator)
    elif kind is PseudoAnomaly.BLUR:
        content = _smeared(image, box)
    else:
        content = patch + _NOISE * torch.randn(1, side, side, generator=generator)
    shape = shape & inside
    if not shape.any():  # such as a disc whose middle was moved off a thin foreground
        shape = inside.clone()
    patch.copy_(torch.where(shape, content.clamp(0, 1), patch))
    mask = torch.zeros_like(foreground)
    box.of(mask).copy_(shape)
    return mask


def put_pseudo_anomalies(
    images: Tensor,
    foreground: Tensor,
    *,
    kind: PseudoAnomaly | str,
    size: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Put one pseudo-anomaly into each image, around a random place of its foreground.

    Foreign content comes from the next image of the batch, or from another place of a single image.
    All channels are changed alike, so that grey images stay grey. Images without foreground stay as
    they are.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], on the CPU.
        foreground: ``(B, 1, H, W)``, true inside; nothing is changed outside.
        kind: see :class:`PseudoAnomaly`.
        size: width of the anomaly as a fraction of the shorter side, in (0, 1]; 1 pixel at least.
        generator: decides places and strengths.

    Returns:
        The changed images, and masks ``(B, 1, H, W)`` of the anomalies, true inside.

    Raises:
        InputError: when the kind is unknown, the size is not in (0, 1], or the shapes do not fit.
    """
    kind = choose(PseudoAnomaly, kind, what="kind")
    if not 0 < size <= 1:
        raise InputError(f"size must lie in (0, 1] of the side, got {size}.")
    if images.dim() != 4 or foreground.shape != images[:, :1].shape:
        raise InputError(
            f"Give images (B, C, H, W) and foreground (B, 1, H, W), got {tuple(images.shape)} and "
            f"{tuple(foreground.shape)}."
        )
    inside = foreground > 0
    side = max(1, round(size * min(images.shape[2:])))
    changed, masks = images.clone(), torch.zeros_like(inside)
    usable = inside.flatten(1).any(dim=1).nonzero().flatten().tolist()
    for index, other in zip(usable, usable[1:] + usable[:1], strict=True):
        source = images[other], inside[other]
        masks[index] = _put(changed[index], inside[index], source, kind, side, generator)
    return changed, masks
