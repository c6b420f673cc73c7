"""Prepared slices as a tree of PNG files, so that other tools read the very same slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from multiad_med.data.slice_cache import CacheError, SliceCache, read_slice
from multiad_med.transforms import SliceState, radiological_view
from multiad_med.utils.atomic import atomic_path

__all__ = ["ExportLayout", "export_png"]


class ExportLayout(StrEnum):
    """How the tree is laid out.

    ``MVTEC``: ``train/good``, ``test/good``, ``test/<kind>`` and ``ground_truth/<kind>`` with masks
    named ``*_mask.png``; normal validation slices in ``validation/good``, as in MVTec LOCO, which
    has no place for abnormal ones.

    ``BMAD``: ``train/good``, and ``valid`` and ``test`` with ``good`` and ``Ungood``, each with ``img``
    and ``label``.
    """

    MVTEC = "mvtec"
    BMAD = "bmad"


def _paths(row: Mapping[str, Any], layout: ExportLayout) -> tuple[Path, Path | None]:
    """Return where a slice and its mask go; no mask where the layout has none."""
    name = f"{str(row['study']).replace('/', '_')}_{int(row['slice']):04d}"
    abnormal = row["state"] == SliceState.ABNORMAL.name.lower()
    category = Path(row["category"] or ".")
    if layout is ExportLayout.BMAD:
        if row["split"] == "training":
            return category / "train" / "good" / f"{name}.png", None
        folder = category / {"validation": "valid", "test": "test"}[row["split"]]
        folder /= "Ungood" if abnormal else "good"
        return folder / "img" / f"{name}.png", folder / "label" / f"{name}.png"
    if not abnormal:
        split = {"training": "train"}.get(row["split"], row["split"])
        return category / split / "good" / f"{name}.png", None
    kind = row["kind"] or "abnormal"
    return (
        category / row["split"] / kind / f"{name}.png",
        category / "ground_truth" / kind / f"{name}_mask.png",
    )


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def export_png(
    cache: str | Path,
    target: str | Path,
    *,
    layout: ExportLayout = ExportLayout.MVTEC,
    bits: int = 8,
    progress: bool = True,
) -> int:
    """Write the slices of a cache as PNG, upright, with masks of 0 and 255.

    Unsure slices (see :class:`SliceState`) are left out: the layouts have no place for them.

    Args:
        cache: what ``multiad prepare`` wrote.
        target: folder for the tree, new or empty.
        layout: of the tree.
        bits: 8, which every tool reads, or 16, which keeps all grey values (one channel only; many
            tools clip them).
        progress: whether to show a progress bar.

    Returns:
        The number of slices.

    Raises:
        CacheError: when the cache cannot be used, ``target`` is not empty, or ``bits`` do not fit.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CacheError(f"{target} is not an empty folder; choose another.")
    states = [SliceState.NORMAL, SliceState.ABNORMAL]
    rows: list[Mapping[str, Any]] = []
    about: dict[str, Any] = {}
    for split in ("training", "validation", "test"):
        only_normal = layout is ExportLayout.MVTEC and split == "validation"
        try:
            part = SliceCache(cache, split=split, states=states[:1] if only_normal else states)
        except CacheError:
            if split == "training":
                raise
            continue
        rows += part.index
        about = part.about
    channels = about["channels"]
    if channels not in (1, 3):
        raise CacheError(f"An image has one or three channels; {cache} has {channels}.")
    if bits not in (8, 16) or (bits == 16 and (channels != 1 or about["bits"] != 16)):
        raise CacheError(
            f"bits={bits} does not fit slices of {channels} channels and {about['bits']} bits: 8 always "
            "does, 16 only one channel of 16."
        )
    paths = [_paths(row, layout)[0] for row in rows]
    twice = [str(path) for path, n in Counter(paths).items() if n > 1]
    if twice:
        raise CacheError(f"Two slices would have one name, first {twice[0]}. Rename their studies.")
    for row in _progress(rows, progress):
        slice_ = read_slice(cache, row["study"], int(row["position"]))
        image, label = (
            radiological_view(slice_[key], upright=about["upright"]) for key in ("image", "label")
        )
        if image.dtype == np.uint16 and bits == 8:
            image = np.round(image / 257.0).astype(np.uint8)
        pixels = image[0] if channels == 1 else image.transpose(1, 2, 0)
        path, mask = _paths(row, layout)
        _save(target / path, np.ascontiguousarray(pixels))
        if mask is not None:
            _save(target / mask, np.where(label, 255, 0).astype(np.uint8))
    return len(rows)


def _progress(rows: list[Mapping[str, Any]], show: bool) -> Iterable[Mapping[str, Any]]:
    return tqdm(rows, desc="exporting", unit="slice", disable=not show)
