"""Where the patient is: foreground masks by stated rules, and the slices that show anything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import KeepLargestConnectedComponent, MapTransform, Transform
from numpy.typing import NDArray
from scipy import ndimage

from multiad_med.transforms.memory_order import as_stored, empty_stored, stored_order, with_meta_of
from multiad_med.transforms.padding import padding_values, without_padding
from multiad_med.transforms.quantiles import quantiles
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = [
    "ForegroundByHounsfield",
    "ForegroundByHounsfieldd",
    "ForegroundByIntensity",
    "ForegroundByIntensityd",
    "ForegroundByLabel",
    "ForegroundByLabeld",
    "WholeForeground",
    "WholeForegroundd",
    "occupied_slices",
]

_IN_PLANE = np.stack([np.zeros((3, 3), bool), ndimage.generate_binary_structure(2, 1)] * 2)[:3]


def slice_areas(mask: torch.Tensor) -> torch.Tensor:
    """Return the number of positive pixels in each slice ``(Z,)`` of a mask ``(X, Y, Z)``."""
    # Slice by slice: a sum over two axes of booleans takes much longer.
    # Last axis first and x last: as NIfTI and DICOM lie in memory.
    inside = plain_tensor(mask).permute(2, 1, 0)
    if inside.dtype is not torch.bool:
        inside = inside > 0
    return torch.tensor([int(np.count_nonzero(plane)) for plane in inside.numpy(force=True)])


def where_labelled(mask: torch.Tensor, labels: Sequence[int] | None) -> torch.Tensor:
    """Return booleans of the mask's shape: where it has one of the labels, or is above 0 without any."""
    order = stored_order(mask)
    found = empty_stored(mask, torch.bool)
    stored, target = mask.permute(order), found.permute(order)
    if labels is None:
        torch.gt(stored, 0, out=target)
    else:
        target.zero_()
        one = torch.empty_like(target)
        for label in labels:
            target |= torch.eq(stored, label, out=one)
    return found


def occupied_slices(mask: torch.Tensor, *, min_fraction: float = 0.1) -> torch.Tensor:
    """Return which axial slices show enough foreground to count.

    The rule: a slice is occupied when its foreground area is at least ``min_fraction`` of the
    largest slice's. It depends neither on resolution nor on the field of view.

    Args:
        mask: ``(C, X, Y, Z)``; a voxel is foreground where any channel is positive.
        min_fraction: in [0, 1].

    Returns:
        Booleans ``(Z,)``; all false where there is no foreground at all.
    """
    area = slice_areas((mask > 0).any(dim=0) if len(mask) > 1 else mask[0])
    return (area > 0) & (area >= min_fraction * area.max())


def _fill_holes_in_plane(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill, in each slice of ``(X, Y, Z)``, what is not connected (by edges) to its border."""
    if not mask.any():
        return mask
    box = tuple(
        slice(max(0, int(hit[0]) - 1), int(hit[-1]) + 2)
        for hit in (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    )
    # In the memory's order: labelling walks it line by line.
    inner = mask[box].transpose(2, 1, 0)
    # A frame of background joins what touches the border.
    outside = np.pad(~inner, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    regions, _ = ndimage.label(outside, structure=_IN_PLANE)
    open_regions = np.zeros(int(regions.max()) + 1, bool)
    open_regions[regions[:, 0, 0]] = True
    filled = mask.copy(order="K")
    filled[box] = ~open_regions[regions[:, 1:-1, 1:-1]].transpose(2, 1, 0)
    return filled


class ForegroundByIntensity(Transform):
    """Foreground of an MR volume: brighter than the background, with holes filled slice by slice.

    The rule is that of FSL's BET: with p2 and p98 the 2 % and 98 % quantiles of all voxels, a voxel
    is foreground above ``p2 + level * (p98 - p2)``. It serves skull-stripped volumes and whole heads in
    air. Padding or background of any constant is background, be it darker or brighter than tissue or
    in between (:func:`multiad_med.transforms.padding.without_padding`). Holes are filled in each axial
    slice, so that dark tissue within the head, such as a cavity, belongs to it. Where almost everything
    is background and p98 equals p2, the maximum takes the place of p98. With several channels (MR
    sequences) a voxel is foreground where any of them says so.

    Args:
        level: fraction of the robust range.
    """

    def __init__(self, *, level: float = 0.1) -> None:
        self.level = level

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mask ``(1, X, Y, Z)``, uint8 in {0, 1}, of a volume ``(C, X, Y, Z)``, Z axial."""
        plain = plain_tensor(image)
        mask = torch.zeros_like(plain[0], dtype=torch.bool)
        for channel in map(without_padding, plain):
            low, high = quantiles(channel, (0.02, 0.98))
            if high <= low:
                high = float(channel.max())
            mask |= channel > low + self.level * (high - low)
        filled = torch.from_numpy(_fill_holes_in_plane(mask.numpy(force=True)))
        return with_meta_of(filled[None].view(torch.uint8), image)


class ForegroundByHounsfield(Transform):
    """Foreground of a CT volume: the body, without table and air around it.

    The rule: the largest connected region of voxels above ``threshold`` that are no padding, with
    holes (lungs, bowel gas) filled in each axial slice.

    Args:
        threshold: in HU; -300 keeps fat and skin and drops air, blankets and most of the table.
    """

    def __init__(self, *, threshold: float = -300.0) -> None:
        self.threshold = threshold
        self.largest = KeepLargestConnectedComponent(connectivity=1)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mask ``(1, X, Y, Z)``, uint8 in {0, 1}, of a volume ``(1, X, Y, Z)`` in HU."""
        plain = plain_tensor(image[:1])
        if max(padding_values(plain[0]), default=self.threshold) > self.threshold:
            plain = without_padding(plain[0])[None]
        body = self.largest((plain > self.threshold).to(torch.uint8))
        inside = plain_tensor(body)[0] > 0
        filled = torch.from_numpy(_fill_holes_in_plane(inside.numpy(force=True)))
        return with_meta_of(filled[None].view(torch.uint8), image)


class ForegroundByLabel(Transform):
    """Foreground of a given segmentation: the voxels of an organ.

    Args:
        labels: values that belong to the organ, such as 6 for the liver in BTCV; none means every
            value above 0.
    """

    def __init__(self, *, labels: Sequence[int] | None = None) -> None:
        self.labels = None if labels is None else tuple(labels)

    def __call__(self, segmentation: torch.Tensor) -> torch.Tensor:
        """Return the mask ``(1, X, Y, Z)``, uint8 in {0, 1}, of a segmentation ``(1, X, Y, Z)``.

        Raises:
            InputError: when no voxel has any of the labels.
        """
        plain = plain_tensor(segmentation)
        mask = where_labelled(plain, self.labels)
        if not as_stored(mask).numpy(force=True).any():
            wanted = "above 0" if self.labels is None else f"of the values {list(self.labels)}"
            found = [round(v, 3) for v in plain.unique().tolist()[:10]]
            raise InputError(
                f"No voxel {wanted} in the organ mask, which holds the values {found}."
            )
        return with_meta_of(mask.view(torch.uint8), segmentation)


class WholeForeground(Transform):
    """Foreground of an image of a product: all of it, black parts too."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mask ``(1, H, W, N)``, uint8, 1 everywhere, of ``(C, H, W, N)``."""
        plain = plain_tensor(image)
        return with_meta_of(torch.ones_like(plain[:1], dtype=torch.uint8), image)


class _Foregroundd(MapTransform):
    """What the dictionary forms share: one key in, the mask to a key of its own.

    A mask that comes with the data counts, and no rule is applied.
    """

    def __init__(self, keys: KeysCollection, mask_key: str, rule: Transform) -> None:
        super().__init__(keys)
        if len(self.keys) != 1:
            raise InputError(f"{type(self).__name__} takes one key, got {self.keys}.")
        self.mask_key = mask_key
        self.rule = rule

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask ``(1, X, Y, Z)``."""
        if self.mask_key in data:
            return dict(data)
        return {**data, self.mask_key: self.rule(data[self.keys[0]])}


class ForegroundByIntensityd(_Foregroundd):
    """Dictionary form of :class:`ForegroundByIntensity`; the mask goes to a key of its own.

    Args:
        keys: the image, one key.
        mask_key: where the mask goes.
        level: see :class:`ForegroundByIntensity`.
    """

    def __init__(
        self, keys: KeysCollection, *, mask_key: str = "foreground", level: float = 0.1
    ) -> None:
        super().__init__(keys, mask_key, ForegroundByIntensity(level=level))


class ForegroundByHounsfieldd(_Foregroundd):
    """Dictionary form of :class:`ForegroundByHounsfield`; the mask goes to a key of its own.

    Args:
        keys: the image, one key.
        mask_key: where the mask goes.
        threshold: in HU.
    """

    def __init__(
        self, keys: KeysCollection, *, mask_key: str = "foreground", threshold: float = -300.0
    ) -> None:
        super().__init__(keys, mask_key, ForegroundByHounsfield(threshold=threshold))


class ForegroundByLabeld(MapTransform):
    """Dictionary form of :class:`ForegroundByLabel`; the mask goes to a key of its own.

    Args:
        keys: the segmentation, one key.
        mask_key: where the mask goes.
        labels: see :class:`ForegroundByLabel`.
        labels_key: key of an item's own labels, where a data set has several sources with
            different ones.
        allow_missing_keys: whether an item without segmentation is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        mask_key: str = "foreground",
        labels: Sequence[int] | None = None,
        labels_key: str = "organ_labels",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.labels = labels
        self.labels_key = labels_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask ``(1, X, Y, Z)``.

        Raises:
            InputError: when there is no segmentation, or as of :class:`ForegroundByLabel`.
        """
        result = dict(data)
        missing = [key for key in self.keys if key not in result]
        if missing and not self.allow_missing_keys:
            raise InputError(
                f"The study has no mask {missing[0]!r}, which is to be its foreground. Give one, on "
                "the image's grid, or use a model and settings that take another foreground."
            )
        for key in self.key_iterator(dict(data)):
            rule = ForegroundByLabel(labels=data.get(self.labels_key, self.labels))
            result[self.mask_key] = rule(result[key])
        return result


class WholeForegroundd(_Foregroundd):
    """Dictionary form of :class:`WholeForeground`; the mask goes to a key of its own.

    Args:
        keys: the image, one key.
        mask_key: where the mask goes.
    """

    def __init__(self, keys: KeysCollection, *, mask_key: str = "foreground") -> None:
        super().__init__(keys, mask_key, WholeForeground())
