"""Learned position embeddings for another grid of patches, as two matrix products.

PyTorch's antialiased bicubic ``interpolate`` cannot be exported to ONNX. A resize is linear in each
direction, and the matrices depend on sizes alone: exported at one size, they are constants.
"""

import torch
from torch import Tensor

__all__ = ["resample_positions"]


def resample_positions(
    positions: Tensor, side: int, rows: int, columns: int, antialias: bool, offset: float
) -> Tensor:
    """Return the position embedding of a grid of patches, as ``interpolate(mode="bicubic")`` gives it.

    Args:
        positions: ``(1, 1 + side * side, C)``, the class token's first, which stays as it is.
        side: rows and columns of the grid that was trained.
        rows: of the grid wanted.
        columns: of the grid wanted.
        antialias: whether the kernel widens where the grid shrinks.
        offset: added to ``rows`` and ``columns`` where the scale is computed.

    Returns:
        ``(1, 1 + rows * columns, C)``.
    """
    if rows == side and columns == side:
        return positions
    if not torch.jit.is_scripting():  # which has no autocast of its own
        with torch.autocast(positions.device.type, enabled=False):
            return _resampled(positions, side, rows, columns, antialias, offset)
    return _resampled(positions, side, rows, columns, antialias, offset)


def _resampled(
    positions: Tensor, side: int, rows: int, columns: int, antialias: bool, offset: float
) -> Tensor:
    """Return the resampled positions, computed in float32; see :func:`resample_positions`."""
    patches = positions[:, 1:].float()
    channels = patches.shape[2]
    down = _resize_matrix(side, rows, side / (rows + offset), antialias, patches)
    across = _resize_matrix(side, columns, side / (columns + offset), antialias, patches)
    patches = torch.matmul(down, patches.reshape(side, side * channels))
    patches = torch.matmul(across, patches.reshape(rows, side, channels))
    patches = patches.reshape(1, rows * columns, channels).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


def _resize_matrix(source: int, target: int, scale: float, antialias: bool, like: Tensor) -> Tensor:
    """Weights ``(target, source)`` of a bicubic resize in one direction, as PyTorch's."""
    columns = torch.arange(source, dtype=like.dtype, device=like.device).unsqueeze(0)
    centres = torch.arange(target, dtype=like.dtype, device=like.device).unsqueeze(1)
    centres = (centres + 0.5) * scale - 0.5
    if antialias:  # what the kernel covers outside is left out
        weights = _cubic((columns - centres) / max(scale, 1.0), -0.5)
        return weights / weights.sum(dim=1, keepdim=True)
    weights = torch.zeros(target, source, dtype=like.dtype, device=like.device)
    for tap in range(-1, 3):  # outside, the values at the border continue
        index = torch.floor(centres) + tap
        inside = index.clamp(0, source - 1) == columns
        weights = weights + inside * _cubic(index - centres, -0.75)
    return weights


def _cubic(x: Tensor, a: float) -> Tensor:
    """Cubic convolution kernel (Keys, 1981, Eq. 15) at distances in pixels."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
