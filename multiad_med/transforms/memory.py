"""Volumes as they lie in memory: NIfTI and DICOM run fastest along x, and so are walked fastest."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

__all__ = ["as_stored", "with_meta_of"]


def as_stored(volume: torch.Tensor) -> torch.Tensor:
    """The same values as a plain tensor whose axes are in the memory's order, the slowest first.

    For whatever does not depend on where a voxel lies: extrema, counts, selections by a mask of
    the same layout. Torch walks a volume whose first axis is the fastest up to fifty times slower.
    """
    plain = torch.as_tensor(volume).as_subclass(torch.Tensor)
    return plain.permute(sorted(range(plain.ndim), key=plain.stride, reverse=True))


def with_meta_of(values: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """The values with the metadata that the source has, left as they lie in memory.

    MONAI's ``convert_to_dst_type`` would turn them around.
    """
    if not isinstance(source, MetaTensor):
        return values
    return MetaTensor(values).copy_meta_from(source)
