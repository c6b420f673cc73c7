"""BMAD: slices as images, in several spellings of its folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multiad_med.testing.layouts.shapes import picture, save_image

_BMAD_ROOTS = {
    "release": {
        "brain": "Brain_AD/BraTS2021_slice",
        "liver": "Liver_AD/hist_DIY",
        "resc": "Retina_RESC_AD/RESC",
    },
    "script": {"brain": "Brain_AD", "liver": "Liver/Train/hist_DIY", "resc": "Retina_RESC_AD/RESC"},
    "mirror": {"brain": "Brain", "liver": "Liver", "resc": "Retina_RESC"},
}
_BMAD_SLICES = {"brain": "{:05d}_{}", "liver": "{}_{}", "resc": "{}_{}"}


def _bmad_folders(category: str, spelling: str, part: str, *, good: bool) -> tuple[str, str]:
    """Return the folders of a split's images and of their masks, in one spelling."""
    kind = "good" if good else "Ungood"
    if spelling == "script" and category == "liver":
        return f"{part}/img/{kind}", f"{part}/label/{kind}"
    if spelling == "script" and category == "resc":
        short = part.removesuffix("id")
        return f"{short.title()}/{short}/{kind}", f"{short.title()}/{short}_label/{kind}"
    if spelling == "script":
        return f"{part}/{kind}/img", f"{part}/{kind}/anomaly_mask"
    if spelling == "release" and category != "brain":
        part, kind = ("val" if part == "valid" and category == "resc" else part), kind.lower()
    return f"{part}/{kind}/img", f"{part}/{kind}/label"


def make_bmad(
    folder: Path,
    *,
    rng: np.random.Generator,
    categories: Sequence[str] = ("brain", "liver", "resc"),
    spelling: str = "release",
    size: int = 32,
    train: int = 4,
    test: int = 2,
) -> None:
    """Write BMAD: slices of brain, liver and RESC with masks.

    Args:
        spelling: of folders; "release" (as in the archives), "script" (as the scripts and other
            users' trees have it: ``anomaly_mask``, ``valid/img/Ungood``, ``Val/val_label/Ungood``) or
            "mirror" (anomalib's).
        train: patients for training, two slices each.
        test: good and as many anomalous patients in each other split, two slices each.
    """
    patient = 0
    for category in categories:
        root = folder / _BMAD_ROOTS[spelling][category]
        for part, count in (("train", train), ("valid", test), ("test", test)):
            for good in (True, False)[: 1 if part == "train" else 2]:
                where, masks = _bmad_folders(category, spelling, part, good=good)
                if part == "train":
                    where = "Train/train/good" if where.startswith("Train") else "train/good"
                for _ in range(count):
                    patient += 1
                    for index in (60, 68):
                        image, mask = picture(size, rng, defect=not good)
                        name = f"{_BMAD_SLICES[category].format(patient, index)}.png"
                        save_image(root / where / name, image)
                        if part != "train":
                            save_image(root / masks / name, mask)
