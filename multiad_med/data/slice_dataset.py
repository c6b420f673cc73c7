"""The axial slices of many volumes as a data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from multiad_med.data.datalist import DATALIST_NAME, first_path
from multiad_med.data.joined_slices import JoinedSlices, slice_caches
from multiad_med.data.slice_cache import CacheError, SliceCache, is_slice_cache
from multiad_med.data.study_errors import StudyError, study_errors
from multiad_med.transforms import marked_slices
from multiad_med.utils.errors import InputError
from multiad_med.utils.sizes import Size, sides, size_setting
from multiad_med.utils.tensors import plain_tensor

__all__ = ["SliceDataset", "open_slices"]


class SliceDataset(Dataset):
    """Normal axial slices of a list of studies, held in memory.

    Each study passes once through ``transform``. Its axial slices are kept where they count
    (:func:`multiad_med.transforms.marked_slices`) and have no lesion in the mask, if there is one.
    Memory: 4 bytes per channel and pixel, 2 GB for 7,500 slices of 256².

    Args:
        data: items of a datalist.
        transform: from an item to a dictionary with ``image (C, H, W, Z)`` in [0, 1], last axis
            axial, and, optionally, ``foreground (1, H, W, Z)`` and ``label (1, X, Y, Z)``, the
            lesion mask, whose in-plane resolution may differ.
        progress: whether to show a progress bar while studies are read.

    Raises:
        StudyError: when a study cannot be read or prepared; the message names it.
        InputError: when no slice is left.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        progress: bool = True,
    ) -> None:
        self.data = data
        self.transform = transform
        self._studies: list[tuple[str, str, Tensor, Tensor, Tensor]] = []
        self._index: list[tuple[int, int]] = []
        for item in tqdm(data, desc="reading studies", unit="study", disable=not progress):
            self._add(item)
        if not self._index:
            raise InputError(
                f"No normal, non-empty slice in {len(data)} studies. Training and calibration need "
                "slices without lesion: check the datalist's splits and masks."
            )

    def _add(self, item: Mapping[str, Any]) -> None:
        with study_errors(item):
            volume = self.transform(item)
        keep = marked_slices(volume["image"])
        image = plain_tensor(volume["image"])
        foreground = plain_tensor(volume.get("foreground", image[:1] > 0))
        if "label" in volume:
            label = plain_tensor(volume["label"])
            if label.shape[-1] != image.shape[-1]:
                raise StudyError(
                    f"{item['image']}: the mask has {label.shape[-1]} axial slices, the image "
                    f"{image.shape[-1]}."
                )
            keep &= ~(label > 0).flatten(0, 2).any(dim=0)
        slices = keep.nonzero().flatten()
        study = len(self._studies)
        self._index += [(study, position) for position in range(len(slices))]
        self._studies.append(
            (
                str(item.get("subject", first_path(item))),
                str(item.get("study", first_path(item))),
                image[..., slices].permute(3, 0, 1, 2).float().contiguous(),
                (foreground[..., slices] > 0).permute(3, 0, 1, 2).contiguous(),
                slices,
            )
        )

    @property
    def subjects(self) -> list[str]:
        """The subject of each slice."""
        return [self._studies[number][0] for number, _ in self._index]

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a slice: ``image (C, H, W)``, ``foreground (1, H, W)``, subject, study and number."""
        number, position = self._index[index]
        subject, study, images, foregrounds, slices = self._studies[number]
        return {
            "image": images[position],
            "foreground": foregrounds[position],
            "subject": subject,
            "study": study,
            "slice": int(slices[position]),
        }


def open_slices(
    source: str | Path,
    *,
    split: str,
    data: Sequence[Mapping[str, Any]],
    transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    size: Size | None = None,
    channels: Sequence[int] | None = None,
    categories: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> SliceCache | JoinedSlices | SliceDataset:
    """Open the normal slices of a split: prepared ones where there are any, else those of volumes.

    Args:
        source: folder of prepared slices, or one that holds several such folders
            (:class:`multiad_med.data.JoinedSlices`); of volumes; or a datalist.
        split: ``training`` or ``validation``.
        data: see :class:`SliceDataset`; not used with a cache.
        transform: see :class:`SliceDataset`; not used with a cache.
        size: that inference will use, one side of a square or two; a cache of another size is refused.
        channels: see :class:`SliceCache`; of a cache only.
        categories: see :class:`SliceCache`; of a cache only. Of several caches, their names.
        settings: of the recipe that the cache must have been prepared with; absent ones there
            count as off. Of several caches, each is prepared in its own way.

    Raises:
        CacheError: when the cache's slices have another size, or were prepared otherwise.
        InputError: when there is no study, as in a folder of one subject, or no slice is left.
    """
    if folders := slice_caches(source):
        return _joined(folders, split=split, size=size, channels=channels, wanted=categories)
    if is_slice_cache(source):
        cache = SliceCache(source, split=split, channels=channels, categories=categories)
        _check_size(cache, size)
        for name, value in (settings or {}).items():
            own = cache.about["settings"].get(name)
            if (own or None) != (value or None):
                raise CacheError(
                    f"{source} was prepared with {name}={own}, wanted is {value}: prepare it with "
                    f"--set {name}={json.dumps(value)}, or train and infer with its own."
                )
        return cache
    if not data:
        datalist = Path(source).is_file() or (Path(source) / DATALIST_NAME).is_file()
        raise InputError(
            f"{source} lists no study in split {split!r}."
            if datalist
            else f"{source} holds normal studies of one subject only, or of none. Training needs two "
            "subjects at least, one of them held out for calibration. A sub-folder is a subject, or else "
            "a file; a datalist.json names subjects and splits itself."
        )
    return SliceDataset(data, transform)


def _check_size(cache: SliceCache, size: Size | None) -> None:
    if size is not None and tuple(cache.about["size"]) != sides(size):
        raise CacheError(
            f"{cache.folder} holds slices of {cache.about['size']}, wanted is {size}: prepare them with "
            f"{size_setting(size)}, or train and infer with their size."
        )


def _joined(
    folders: Mapping[str, Path],
    *,
    split: str,
    size: Size | None,
    channels: Sequence[int] | None,
    wanted: Sequence[str] | None,
) -> JoinedSlices:
    if unknown := sorted(set(wanted or ()) - set(folders)):
        raise CacheError(
            f"There are no prepared slices of {unknown}; there are those of {list(folders)}."
        )
    caches = {
        name: SliceCache(folder, split=split, channels=channels)
        for name, folder in folders.items()
        if wanted is None or name in wanted
    }
    for cache in caches.values():
        _check_size(cache, size)
    return JoinedSlices(caches)
