"""What a lesion mask says about each slice, and which slices of a study are kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, Transform

from multiad_med.transforms.foreground import occupied_slices, slice_areas, where_labelled
from multiad_med.transforms.memory_order import as_stored, with_meta_of
from multiad_med.utils.errors import InputError
from multiad_med.utils.tensors import plain_tensor

__all__ = ["KeepSlicesd", "SliceLabels", "SliceLabelsd", "SliceState"]


class SliceState(IntEnum):
    """Whether a slice is normal.

    ``UNSURE`` slices are neither clean normals nor fair positives: their lesion is smaller than
    the smallest that counts, or they border on an abnormal slice.
    """

    UNSURE = -1
    NORMAL = 0
    ABNORMAL = 1


class SliceLabels(Transform):
    """The state of each axial slice by its lesion mask.

    Abnormal: lesion area of at least ``min_area``. Unsure: a smaller lesion, or at most ``margin``
    slices away from an abnormal one. Normal: all others.

    Args:
        min_area: in mm².
        margin: in slices.
        labels: values of the mask that mean lesion, such as 2 in LiTS; none means all above 0.
        known_labels: with ``labels``, all values above 0 that a mask may have; a mask with another
            value is refused.
    """

    def __init__(
        self,
        *,
        min_area: float = 0.0,
        margin: int = 0,
        labels: Sequence[int] | None = None,
        known_labels: Sequence[int] | None = None,
    ) -> None:
        if min_area < 0 or margin < 0:
            raise InputError(f"min_area and margin must not be negative: {min_area}, {margin}.")
        self.min_area = min_area
        self.margin = margin
        self.labels = None if labels is None else tuple(labels)
        self.known_labels = None if known_labels is None else tuple(known_labels)

    def lesion(self, mask: torch.Tensor) -> torch.Tensor:
        """Return booleans of the mask's shape, as a plain tensor: where there is lesion.

        Raises:
            InputError: when the mask has a value above 0 that is not known.
        """
        plain = plain_tensor(mask)
        if self.labels is not None and self.known_labels is not None:
            stored = as_stored(plain).numpy(force=True)
            known = sum(np.count_nonzero(stored == value) for value in self.known_labels)
            if np.count_nonzero(stored > 0) > known:
                raise InputError(
                    f"The mask has the values {[round(v, 3) for v in plain.unique().tolist()[:10]]}; "
                    f"known are 0 and {list(self.known_labels)}, of which {list(self.labels)} are "
                    "lesion here. Choose the labels of this mask, or none for all above 0."
                )
        return where_labelled(plain, self.labels)

    def __call__(self, mask: torch.Tensor) -> torch.Tensor:
        """Return the states ``(Z,)``, int8, (:class:`SliceState`) of a mask ``(1, X, Y, Z)`` in RAS."""
        return self.states(self.lesion(mask), mask)

    def states(self, lesion: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the states ``(Z,)`` of a binary lesion ``(1, X, Y, Z)`` on the grid of ``mask``."""
        spacing = affine_to_spacing(mask.affine) if isinstance(mask, MetaTensor) else np.ones(3)
        pixels = slice_areas(lesion[0])
        area = pixels * float(spacing[0] * spacing[1])
        abnormal = (pixels > 0) & (area >= self.min_area)
        state = torch.where(pixels > 0, SliceState.UNSURE, SliceState.NORMAL).to(torch.int8)
        if self.margin:
            near = abnormal.float()[None, None]
            size = 2 * self.margin + 1
            near = torch.nn.functional.max_pool1d(near, size, stride=1, padding=self.margin)[0, 0]
            state[near > 0] = SliceState.UNSURE
        state[abnormal] = SliceState.ABNORMAL
        return state


class SliceLabelsd(MapTransform):
    """Dictionary form of :class:`SliceLabels`; also makes the mask binary.

    Args:
        keys: the lesion mask, one key, which may be absent: without it, slices of a study that is
            ``anomalous`` are unsure, and all others normal. A single image is abnormal where its
            item says so, whatever its mask.
        image_key: gives the number of slices where there is no mask.
        state_key: where the states go.
        min_area: see :class:`SliceLabels`.
        margin: see :class:`SliceLabels`.
        labels: see :class:`SliceLabels`.
        known_labels: see :class:`SliceLabels`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        image_key: str = "image",
        state_key: str = "state",
        min_area: float = 0.0,
        margin: int = 0,
        labels: Sequence[int] | None = None,
        known_labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key
        self.state_key = state_key
        self.rule = SliceLabels(
            min_area=min_area, margin=margin, labels=labels, known_labels=known_labels
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the states ``(Z,)``; the mask ``(1, X, Y, Z)`` becomes uint8 in {0, 1}."""
        result = dict(data)
        for key in self.key_iterator(result):
            lesion = self.rule.lesion(result[key])
            result[self.state_key] = self.rule.states(lesion, result[key])
            result[key] = with_meta_of(lesion.view(torch.uint8), result[key])
        count = result[self.image_key].shape[-1]
        anomalous = bool(result.get("anomalous"))
        if self.state_key not in result or (count == 1 and anomalous):
            state = SliceState.NORMAL
            if anomalous:
                state = SliceState.ABNORMAL if count == 1 else SliceState.UNSURE
            result[self.state_key] = torch.full((count,), int(state), dtype=torch.int8)
        return result


def _take(volume: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
    """Return slices of ``(C, X, Y, Z)``, in the volume's memory order."""
    plain = plain_tensor(volume)
    if len(slices) and int(slices[-1] - slices[0]) == len(slices) - 1:
        taken = plain[..., int(slices[0]) : int(slices[-1]) + 1]
    else:
        order = sorted(range(4), key=plain.stride, reverse=True)
        taken = plain.permute(order).index_select(order.index(3), slices)
        taken = taken.permute([order.index(axis) for axis in range(4)])
    return with_meta_of(taken, volume)


class KeepSlicesd(MapTransform):
    """Keep the axial slices that a study contributes, and remember which they were.

    It comes before costly steps: most of a CT never reaches them. A slice is kept when
    it is occupied (:func:`occupied_slices`) and, in a study for training, normal. A published split
    may say more: ``wanted_slices`` of an item (numbers in the RAS volume) drops all others, and
    ``normal_only`` drops all but normal ones.

    Args:
        keys: volumes ``(C, X, Y, Z)`` in RAS; absent ones are passed over.
        mask_key: foreground; without it every slice counts as occupied.
        state_key: states ``(Z,)``.
        min_fraction: see :func:`occupied_slices`.
        normal_splits: splits of the datalist of which only normal slices are kept.
        slice_key: where the kept slices' numbers ``(n,)`` go.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        mask_key: str = "foreground",
        state_key: str = "state",
        min_fraction: float = 0.1,
        normal_splits: Sequence[str] = ("training",),
        slice_key: str = "slices",
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.mask_key = mask_key
        self.state_key = state_key
        self.min_fraction = min_fraction
        self.normal_splits = tuple(normal_splits)
        self.slice_key = slice_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut each key to the slices kept; a study may keep none."""
        result = dict(data)
        state = result[self.state_key]
        keep = torch.ones(len(state), dtype=torch.bool)
        if self.mask_key in result:
            keep &= occupied_slices(
                plain_tensor(result[self.mask_key]), min_fraction=self.min_fraction
            )
        if "wanted_slices" in result:
            keep &= torch.isin(torch.arange(len(keep)), torch.as_tensor(result["wanted_slices"]))
        if result.get("normal_only") or result.get("split") in self.normal_splits:
            keep &= state == SliceState.NORMAL
        kept = keep.nonzero().flatten()
        for key in self.key_iterator(result):
            result[key] = _take(result[key], kept)
        result[self.state_key] = state[kept]
        result[self.slice_key] = kept
        return result
