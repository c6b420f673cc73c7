"""sPRO of MVTec LOCO: maps against the masks and saturation thresholds as published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from monai.utils import ensure_tuple
from torch.nn.functional import interpolate

from multiad_med.data import DATALIST_NAME, SliceCache
from multiad_med.evaluation.cases import Case
from multiad_med.metrics import StreamingSpro
from multiad_med.readers.image_file import image_size
from multiad_med.readers.loco_regions import is_loco, loco_regions
from multiad_med.utils.json_files import read_json

__all__ = ["SaturatedOverlap"]


class SaturatedOverlap:
    """sPRO to a false-positive rate of 5 %, category by category.

    Maps are brought to the size of the published masks, bilinearly. Cases of other data sets, and
    images cut into tiles, are passed over.

    Args:
        items: of a datalist, with ``study``, ``category``, ``image`` and the paths of the masks under
            ``label``.
    """

    def __init__(self, items: Iterable[Mapping[str, Any]]) -> None:
        items = list(items)
        of_loco = {
            item.get("category")
            for item in items
            if any(is_loco(Path(path)) for path in ensure_tuple(item.get("label", ())))
        }
        self._items = {
            str(item["study"]): item
            for item in items
            if item.get("category") in of_loco and "study" in item
        }
        self._curves: dict[str, StreamingSpro] = {}

    @classmethod
    def of_cache(cls, folder: str | Path) -> Self:
        """Return one for the test images of prepared slices, whose published files are still there.

        Slices with black borders have another geometry than their masks; of them there is none.
        """
        bordered = SliceCache(folder, split="test").about["settings"].get("keep_aspect")
        listed = Path(folder) / DATALIST_NAME
        return cls(() if bordered or not listed.is_file() else read_json(listed)["test"])

    def update(self, case: Case) -> None:
        """Take in a case.

        Raises:
            DatalistError, ImageError: when a mask or its saturation threshold cannot be read.
        """
        item = self._items.get(case.study)
        if item is None or not case.is_image:
            return
        regions = loco_regions([Path(path) for path in ensure_tuple(item.get("label", ()))])
        size = regions[0].mask.shape if regions else image_size(Path(item["image"]))
        maps = interpolate(case.anomaly_map[None].float(), tuple(size), mode="bilinear")
        curve = self._curves.setdefault(case.category, StreamingSpro())
        curve.update(maps[0, 0], regions)

    def metrics(self) -> dict[str, float]:
        """Return sPRO by category; {} where there is no image of MVTec LOCO."""
        return {category: curve.spro for category, curve in sorted(self._curves.items())}
