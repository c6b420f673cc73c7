"""What a folder holds, and which recipe fits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiad_med.data.study_files import DatalistError
from multiad_med.datasets.bmad import find_bmad
from multiad_med.datasets.brats import find_brats
from multiad_med.datasets.class_folders import find_classes
from multiad_med.datasets.hints import looks_like
from multiad_med.datasets.layout_files import (
    NothingFoundError,
    count_suffixes,
    existing_folder,
    nothing_found,
    walk,
)
from multiad_med.datasets.liver import find_btcv, find_lits, find_liver
from multiad_med.datasets.mvtec import find_mvtec
from multiad_med.datasets.plain_images import find_images
from multiad_med.datasets.real_iad import find_real_iad
from multiad_med.datasets.resc import find_resc
from multiad_med.datasets.volumes import find_volumes

__all__ = ["Finding", "recognise"]

_Layout = Callable[[str | Path], list[dict[str, Any]]]


def _resc_by_name(source: str | Path) -> list[dict[str, Any]]:
    """List RESC where names show it, since its form of one file per volume fits any volumes."""
    folder = existing_folder(source)
    names = [path.relative_to(folder).as_posix() for path in walk(folder)]
    told = any(re.search("macularcube|edema_", name, re.IGNORECASE) for name in names)
    if looks_like(names) in (None, "volumes") and not told:
        raise nothing_found(folder, "name of RESC", recipe="resc")
    return find_resc(folder)


def _scenes_by_name(source: str | Path) -> list[dict[str, Any]]:
    """Intel's scenes where their name tells it: other folders of classes have none."""
    folder = existing_folder(source)
    if looks_like(path.relative_to(folder).as_posix() for path in walk(folder)) != "intel_scenes":
        raise nothing_found(folder, "folder seg_train", recipe="intel_scenes")
    return find_classes(folder)


_LAYOUTS: dict[str, _Layout] = {
    "liver_ct": find_liver,
    "brats2021": find_brats,
    "lits": find_lits,
    "btcv": find_btcv,
    "bmad": find_bmad,
    "resc": _resc_by_name,
    "mvtec_ad": find_mvtec,
    "real_iad": find_real_iad,
    "intel_scenes": _scenes_by_name,
}
_ARRAYS = ("cifar10", "cifar100", "fashion_mnist")
_GENERIC: dict[str, _Layout] = {"volumes": find_volumes, "images": find_images}


@dataclass(frozen=True)
class Finding:
    """What a layout found in a folder.

    Args:
        recipe: that fits; None when no layout fits the folder.
        items: number of studies or images.
        subjects: number of patients or eyes (industrial images: as many as items).
        splits: number of items by split as published; "unassigned" where none is.
        note: what is worth knowing, such as why a recipe that nearly fits does not.
    """

    recipe: str | None
    items: int = 0
    subjects: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


def _note(items: list[dict[str, Any]]) -> str:
    labelled = sum("label" in item for item in items)
    categories = Counter(item["category"] for item in items if "category" in item)
    anomalous = sum(bool(item.get("anomalous")) for item in items)
    parts = [f"{labelled} with lesion or defect masks", f"{anomalous} marked anomalous"]
    parts += [f"{name}: {count}" for name, count in sorted(categories.items())]
    return ", ".join(parts)


def _try(recipe: str, layout: _Layout, folder: Path) -> Finding | None:
    """Return a layout's finding: None where it is absent, with the reason where it is broken."""
    try:
        items = layout(folder)
    except NothingFoundError:
        return None
    except DatalistError as error:
        return Finding(recipe, note=f"cannot be used as it is: {error}")
    splits = Counter(item.get("split", "unassigned") for item in items)
    return Finding(
        recipe, len(items), len({i["subject"] for i in items}), dict(splits), _note(items)
    )


def recognise(source: str | Path) -> list[Finding]:
    """Find what a folder holds, and which recipes fit.

    Only names and small tables are read, no image.

    Args:
        source: the folder.

    Returns:
        Findings, best first: those that can be used before those with a fault, which their note
        names. ``volumes`` and ``images`` are tried only where no published layout can be read.
        When nothing fits, one finding without recipe, whose note counts the files by suffix.

    Raises:
        DatalistError: when the folder does not exist.
    """
    folder = existing_folder(source)
    findings: list[Finding] = []
    for layouts in (_LAYOUTS, _GENERIC):
        tried = (_try(recipe, layout, folder) for recipe, layout in layouts.items())
        findings += [finding for finding in tried if finding is not None]
        if any(finding.items for finding in findings):
            break
    hint = looks_like(path.relative_to(folder).as_posix() for path in walk(folder))
    if hint in _ARRAYS:
        findings.append(Finding(hint, note="arrays of images, which `multiad prepare` unpacks"))
    findings.sort(key=lambda finding: finding.items == 0)
    return findings or [Finding(None, note=f"It holds {count_suffixes(folder)}.")]
