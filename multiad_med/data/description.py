"""What a model's card says about its training: how slices were prepared, from which data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from multiad_med.data.datalist import first_path
from multiad_med.data.image_hashes import image_hashes
from multiad_med.data.joined_slices import JoinedSlices
from multiad_med.data.slice_cache import SliceCache
from multiad_med.data.slice_dataset import SliceDataset
from multiad_med.utils.errors import InputError
from multiad_med.utils.sizes import shortest

__all__ = ["describe_data", "describe_training", "studies_sha256"]


def studies_sha256(items: Iterable[Mapping[str, Any]]) -> str:
    """Return one hash over subject, file name and size of each study of a datalist's split."""
    files = [(str(item.get("subject", "")), Path(first_path(item))) for item in items]
    return _hash([[subject, path.name, path.stat().st_size] for subject, path in files])


def _hash(studies: list[list[Any]]) -> str:
    return hashlib.sha256(json.dumps(sorted(studies)).encode()).hexdigest()


def describe_data(dataset: SliceCache | JoinedSlices | SliceDataset) -> dict[str, Any]:
    """Return the numbers of subjects, studies and slices, and one hash over the studies.

    Where there are several categories, their names too.
    """
    items = dataset.data
    categories = {str(item.get("category", "")) for item in items}
    if isinstance(dataset, SliceCache | JoinedSlices):
        rows = {row["study"]: row for row in items}
        studies = len(rows)
        digest = _hash([[r["subject"], name, r["source_sha256"]] for name, r in rows.items()])
    else:
        studies = len(items)
        digest = studies_sha256(items)
    return {
        "subjects": len(set(dataset.subjects)),
        "studies": studies,
        "slices": len(dataset),
        "studies_sha256": digest,
        **({"categories": sorted(categories)} if len(categories) > 1 else {}),
    }


def describe_training(
    *,
    domain: str,
    preparation: Mapping[str, Any],
    settings: Mapping[str, Any],
    training: SliceCache | JoinedSlices | SliceDataset,
    held_out: SliceCache | JoinedSlices | SliceDataset,
) -> dict[str, Any]:
    """Return the parts of a :class:`multiad_med.card.ModelCard` that a training knows.

    Args:
        domain: what the model is for, such as ``brain_mri``.
        preparation: settings that decide what the network sees. For prepared slices, those that they
            were prepared with count. Of several caches, ``caches`` has those of each, by its name.
        settings: of the training; it is not resumed with others.
        training: the normal slices that train.
        held_out: the normal slices that set the thresholds.

    Raises:
        InputError: when a transform of the user's own is set for slices that are prepared already.
    """
    prepared = dict(preparation)
    source: dict[str, Any] = {}
    if isinstance(training, SliceCache | JoinedSlices):
        if prepared.get("transform") is not None:
            raise InputError(
                f"transform {prepared['transform']}: prepared slices have had their transforms. Train on "
                "the images themselves."
            )
        if isinstance(training, JoinedSlices):
            of_each = {name: cache.about for name, cache in training.caches.items()}
            caches = {name: about["settings"] for name, about in of_each.items()}
            prepared = {"size": prepared["size"], "caches": caches}
            source = {"recipes": {name: about.get("recipe") for name, about in of_each.items()}}
        else:
            own = training.about["settings"]
            prepared |= {name: own[name] for name in prepared if own.get(name) is not None}
            source = {"recipe": training.about.get("recipe"), "recipe_settings": own}
    if prepared.get("size") is not None:
        prepared["size"] = shortest(prepared["size"])
    return {
        "domain": domain,
        "preparation": prepared,
        "training": {
            **settings,
            **source,
            "training_data": describe_data(training),
            "held_out_data": describe_data(held_out),
        },
        "image_hashes": {
            "training": image_hashes(training),
            "held_out": image_hashes(held_out),
        },
    }
