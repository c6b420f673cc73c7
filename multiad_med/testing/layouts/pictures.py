"""MVTec AD, LOCO, BTAD, VisA and Real-IAD: textured images with scratches."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from multiad_med.testing.layouts.shapes import picture, save_image


def make_mvtec(
    folder: Path,
    *,
    rng: np.random.Generator,
    categories: Sequence[str] = ("bottle", "screw"),
    size: int = 32,
    train: int = 4,
    good: int = 2,
    defects: Mapping[str, int] | None = None,
) -> None:
    """Write MVTec AD: ``train/good``, ``test/<kind>`` and ``ground_truth/<kind>/000_mask.png``."""
    for category in categories:
        root = folder / category
        for part, count in (("train", train), ("test", good)):
            for index in range(count):
                image, _ = picture(size, rng, defect=False)
                save_image(root / part / f"good/{index:03d}.png", image)
        for kind, count in (defects or {"scratch": 2, "crack": 1}).items():
            for index in range(count):
                image, mask = picture(size, rng, defect=True)
                save_image(root / f"test/{kind}/{index:03d}.png", image)
                save_image(root / f"ground_truth/{kind}/{index:03d}_mask.png", mask)


def make_loco(
    folder: Path, *, rng: np.random.Generator, category: str = "breakfast_box", size: int = 32
) -> None:
    """Write MVTec LOCO: ``validation/good`` and several masks per image, one pixel value per defect."""
    root = folder / category
    for part, count in (("train", 4), ("validation", 2), ("test", 2)):
        for index in range(count):
            save_image(root / part / f"good/{index:03d}.png", picture(size, rng, defect=False)[0])
    config = []
    for value, kind in ((255, "logical_anomalies"), (254, "structural_anomalies")):
        image, mask = picture(size, rng, defect=True)
        save_image(root / f"test/{kind}/000.png", image)
        for number in range(2):
            half = mask.copy()
            half[:, number::2] = 0
            save_image(
                root / f"ground_truth/{kind}/000/{number:03d}.png", half // 255 * np.uint8(value)
            )
        config.append(
            {
                "defect_name": kind.removesuffix("_anomalies"),
                "pixel_value": value,
                "saturation_threshold": 100 if value == 255 else 0.5,
                "relative_saturation": value != 255,
            }
        )
    (root / "defects_config.json").write_text(json.dumps(config))


def make_btad(
    folder: Path, *, rng: np.random.Generator, category: str = "01", size: int = 32
) -> None:
    """Write BTAD: ``ok`` and ``ko``, images in BMP, masks in PNG named as their image."""
    root = folder / category
    for part in ("train", "test"):
        for index in range(2):
            save_image(root / part / f"ok/{index:04d}.bmp", picture(size, rng, defect=False)[0])
    image, mask = picture(size, rng, defect=True)
    save_image(root / "test/ko/0000.bmp", image)
    save_image(root / "ground_truth/ko/0000.png", mask)


def make_visa(
    folder: Path, *, rng: np.random.Generator, category: str = "candle", size: int = 32
) -> None:
    """Write VisA: images by label, splits in ``split_csv/1cls.csv``; mask values count from 1."""
    rows = []
    for index in range(4):
        path = f"{category}/Data/Images/Normal/{index:04d}.JPG"
        save_image(folder / path, picture(size, rng, defect=False)[0])
        rows.append([category, "train" if index < 3 else "test", "normal", path, ""])
    path, mask_path = (
        f"{category}/Data/{p}" for p in ("Images/Anomaly/000.JPG", "Masks/Anomaly/000.png")
    )
    image, mask = picture(size, rng, defect=True)
    save_image(folder / path, image)
    save_image(folder / mask_path, mask // 255)
    rows.append([category, "test", "anomaly", path, mask_path])
    (folder / "split_csv").mkdir()
    with (folder / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["object", "split", "label", "image", "mask"], *rows])


def make_real_iad(
    folder: Path,
    *,
    rng: np.random.Generator,
    categories: Sequence[str] = ("audiojack",),
    size: int = 32,
    train: int = 4,
) -> None:
    """Real-IAD: samples of five views, ``train`` normal ones for training, a normal and an anomalous one
    for the test, of whose views two show the scratch.
    """
    for category in categories:
        root = folder / "realiad_256" / category
        parts: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
        for sample in range(1, train + 3):
            anomalous = sample == train + 2
            place = f"NG/HS/S{sample:04d}" if anomalous else f"OK/S{sample:04d}"
            for view in range(1, 6):
                defect = anomalous and view < 3
                name = f"{place}/{category}_{sample:04d}_{place[:2]}_C{view}_20231021"
                image, mask = picture(size, rng, defect=defect)
                save_image(root / f"{name}.jpg", image)
                if defect:
                    save_image(root / f"{name}_mask.png", mask)
                parts["train" if sample <= train else "test"].append(
                    {
                        "category": category,
                        "anomaly_class": "HS" if defect else "OK",
                        "image_path": f"{name}.jpg",
                        "mask_path": f"{name}_mask.png" if defect else None,
                    }
                )
        table = folder / "realiad_jsons/realiad_jsons" / f"{category}.json"
        table.parent.mkdir(parents=True, exist_ok=True)
        meta = {"normal_class": "OK", "prefix": f"{category}/"}
        table.write_text(json.dumps({"meta": meta, **parts}))
