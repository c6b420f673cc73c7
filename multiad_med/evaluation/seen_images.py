"""Evaluated images that the model has seen before, found by their hashes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from multiad_med.card import ModelCard
from multiad_med.data.datalist import first_path
from multiad_med.data.image_hashes import image_hash
from multiad_med.datasets.layout_files import first
from multiad_med.evaluation.evaluation import Evaluation
from multiad_med.utils.errors import MultiADError

__all__ = ["hashes_of", "note_seen_images"]

_SEEN = {
    "training": "the model was trained on",
    "held_out": "were held out in its training, to choose and calibrate",
    "calibration": "its thresholds come from",
}
_FIRST = 5


def hashes_of(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the hash of each item's image, by its path; one that cannot be read is left out."""
    found = {}
    for item in items:
        try:
            found[first_path(item)] = image_hash(item)
        except MultiADError:  # reported where the study failed
            continue
    return found


def note_seen_images(evaluation: Evaluation, card: ModelCard, hashes: Mapping[str, str]) -> None:
    """Note which evaluated images the model has seen: in the evaluation, its remarks, and a warning.

    Args:
        evaluation: changed in place.
        card: of the model.
        hashes: of the evaluated images, by name.
    """
    if not card.image_hashes:
        return
    evaluation.seen_images = {"evaluated": len(hashes)}
    told = []
    for purpose, words in _SEEN.items():
        known = set(card.image_hashes.get(purpose, ()))
        names = [name for name, own in hashes.items() if own in known]
        evaluation.seen_images[purpose] = {"count": len(names), "first": names[:_FIRST]}
        if names:
            shown = first(Path(name).name for name in names)
            told.append(f"{len(names)} of {len(hashes)} evaluated images {words}: {shown}.")
    if told:
        told.append("The metrics look better than they are; evaluate images that it has not seen.")
        evaluation.remarks.insert(0, " ".join(told))
        warnings.warn(evaluation.remarks[0], stacklevel=2)
