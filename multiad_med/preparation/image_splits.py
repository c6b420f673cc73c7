"""Which images train, which calibrate, and which are tested or inferred."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from multiad_med.data.datalist import (
    DATALIST_NAME,
    SPLITS,
    DatalistError,
    load_datalist,
    split_subjects,
    train_or_infer,
)
from multiad_med.data.image_hashes import image_hash
from multiad_med.data.joined_slices import slice_caches
from multiad_med.data.splits import SubjectSplit
from multiad_med.datasets import find_images, find_mvtec
from multiad_med.datasets.hints import looks_like
from multiad_med.datasets.layout_files import existing_folder, study_name, walk
from multiad_med.networks import read_card
from multiad_med.utils.suffixes import is_image

__all__ = ["load_images"]

Items = list[dict[str, Any]]
Splits = dict[str, Items]

# Parts of MVTec's tree, and what only a plain folder has: images in `train` itself, `good` at the top.
_MVTEC_PART = re.compile(r"(^|/)(train|test)/[^/]+/[^/]+$")
_PLAIN_PART = re.compile(r"^(train/[^/]+$|(good|ok|normal)/)", re.IGNORECASE)

_TEST = 0.2


def _is_plain(names: Sequence[str]) -> bool:
    return looks_like(names) == "images" and (
        any(map(_PLAIN_PART.search, names)) or not any(map(_MVTEC_PART.search, names))
    )


def _without_results(items: Items) -> Items:
    """Leave out maps and overlays of an earlier inference, whose scores lie beside them."""

    def is_own(path: Path) -> bool:
        name = path.stem.removesuffix("_anomaly")
        return path.with_name(f"{name}_anomaly.json").is_file()

    return [item for item in items if not is_own(Path(item["image"]))]


def _untested(items: Items, *, plain: bool, seed: int) -> tuple[Items, set[str]]:
    """Return the normal images of categories without any in the test, and a share of their subjects.

    The share is for the test. It is empty where nothing is anomalous, or too few subjects would be left
    to train and calibrate with.
    """
    found: Items = []
    held: set[str] = set()
    for category in {item.get("category") for item in items}:
        own = [item for item in items if item.get("category") == category]
        normal = [item for item in own if not item["anomalous"]]
        all_normal = len(normal) == len(own)
        if any(item.get("split") == "test" for item in normal) or (all_normal and not plain):
            continue
        found += normal
        subjects = {item["subject"] for item in normal}
        if not all_normal and len(subjects) > 2:
            held |= split_subjects(subjects, validation_fraction=_TEST, seed=seed)[1]
    return found, held


def _unseen(items: Items, model: str | Path) -> Items | None:
    """Return the items whose images a model has not seen; None if its card does not say."""
    path = Path(model)
    card = read_card(path) if path.is_file() else None
    if card is None or not card.image_hashes:
        return None
    known = {one for hashes in card.image_hashes.values() for one in hashes}
    return [item for item in items if image_hash(item) not in known]


def _divided(
    items: Items, *, plain: bool, validation: float, seed: int, model: str | Path | None
) -> Splits:
    untested, held = _untested(items, plain=plain, seed=seed)
    in_parts = any(item.get("split") for item in items if not item["anomalous"])
    normal = [i for i in items if not i["anomalous"] and i.get("split") != "test"]
    training = [item for item in normal if item["subject"] not in held]
    if plain and not in_parts:
        splits = train_or_infer(training, validation_fraction=validation, seed=seed)
    else:
        split = SubjectSplit(
            training=1 - validation, validation=validation, test=0, seed=seed, stratify="category"
        )
        splits = split([{"split": "training", **item} for item in training])
    back = [item for item in untested if item["subject"] in held]
    if model is not None:
        unseen = _unseen(untested, model)
        back = unseen if unseen is not None else back or untested
    elif plain and not in_parts:
        back = untested  # for inference, every image
    tested = {i["subject"] for i in items if i["anomalous"] or i.get("split") == "test"}
    tested |= {item["subject"] for item in back}
    test = [item for item in items if item["subject"] in tested]
    if model is not None and untested and not test:
        raise DatalistError(
            f"{model} has seen all {len(items)} images in its training. Evaluate images that it has not "
            "seen."
        )
    return {**splits, "test": test}


def load_images(
    source: str | Path,
    *,
    categories: Sequence[str] | str | None = None,
    validation: float = 0.1,
    seed: int = 0,
    model: str | Path | None = None,
) -> Splits:
    """Return the images to train on, to infer or to evaluate: MVTec's tree, a folder, or a datalist.

    Args:
        source: root or one category of an MVTec-like tree (:func:`find_mvtec`). Or any other folder
            of images (:func:`find_images`), with folders ``train`` and ``test`` or without. Or one
            image, which is ``test``. Or a datalist, a folder with one, or prepared slices. A folder of
            several folders of prepared slices has no images: its splits are empty.
        categories: names of the categories wanted, or one; none means all.
        validation: share of the normal images for training that is held out for calibration, where
            no validation is published.
        seed: of the split.
        model: that is evaluated, if there is one; see below.

    Returns:
        The normal images in ``training`` and ``validation``. Where there are anomalous images and no
        normal ones to test on, a fifth of the normal ones is in neither. ``test`` has what the source
        puts there. It also has normal images that the source does not assign: with a model, those that
        it has not seen (or that fifth, if its card does not say); without one, all of a plain folder,
        for inference.

    Raises:
        DatalistError: when there are no images, a category is unknown or has no normal image
            for training, the model has seen all of them, or what
            :func:`multiad_med.data.load_datalist` refuses.
    """
    path = Path(source).expanduser()
    if path.is_file() and is_image(path):
        one = {"image": str(path.absolute()), "subject": path.stem, "study": study_name(path.stem)}
        return _of_categories({"training": [], "validation": [], "test": [one]}, categories, path)
    if path.is_file() or (path / DATALIST_NAME).is_file():
        return _of_categories(load_datalist(path), categories, path)
    folder = existing_folder(path)
    if slice_caches(folder):
        return {split: [] for split in SPLITS}
    options: dict[str, Any] = {"validation": validation, "seed": seed, "model": model}
    if _is_plain([file.relative_to(folder).as_posix() for file in walk(folder)]):
        items = _without_results(find_images(folder))
        return _of_categories(_divided(items, plain=True, **options), categories, path)
    items = _without_results(find_mvtec(folder, categories=categories))
    splits = _divided(items, plain=False, **options)
    trained = {item["category"] for item in splits["training"]}
    if bare := sorted({item["category"] for item in items} - trained):
        raise DatalistError(
            f"{folder}: no normal image for training in the categories {bare}. Put normal images "
            f"in train/good, or choose among {sorted(trained)} by `categories`."
        )
    return splits


def _of_categories(
    splits: Mapping[str, Items], categories: Sequence[str] | str | None, source: Path
) -> Splits:
    if categories is None:
        return dict(splits)
    categories = ensure_tuple(categories)
    known = {str(item.get("category", "")) for items in splits.values() for item in items} - {""}
    if unknown := sorted(set(categories) - known):
        raise DatalistError(
            f"{source} has no category {unknown}; it has {sorted(known) or 'none'}."
        )
    return {
        name: [item for item in items if item.get("category") in categories]
        for name, items in splits.items()
    }
