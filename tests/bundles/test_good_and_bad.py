"""Folders of good and bad images without masks: trained on, judged and evaluated as whole images."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiad_med.evaluation.labelled import evaluate_model
from multiad_med.testing.layouts import picture, save_image
from tests.bundles.models import infer, train

BUNDLE = "multiad_industrial"
UNSEEN = {"datalist#model": "@ckpt_path"}
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "foreground_pixel_auroc", "aupro", "dice", "froc_score")


def fill(folder: Path, **counts: int) -> Path:
    """So many images in each folder; ``__`` stands for a slash, and those not called good are bad."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        defect = not name.endswith(("good", "train"))
        for number in range(count):
            image = picture(64, rng, defect=defect)[0]
            save_image(folder / name.replace("__", "/") / f"{number:03d}.png", image)
    return folder


def evaluated(data: Path, model: Path, out: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*evaluated images.*")
        infer(BUNDLE, data, model, out, config="evaluate.json", bootstrap=20, **UNSEEN)
    return json.loads((out / "metrics.json").read_text())


def check_image_level_only(metrics: dict[str, Any], out: Path) -> None:
    assert 0 <= metrics["image_auroc"] <= 1
    assert 0 <= metrics["image_ap"] <= 1
    assert not [name for name in PIXEL_METRICS if name in metrics]
    assert "pixel" not in metrics["calibration"]
    assert {"observed_rate", "sensitivity"} <= metrics["calibration"]["slice"].keys()
    (told,) = (remark for remark in metrics["remarks"] if "mask" in remark)
    assert re.search(r"no masks.*whole images", told)
    assert told in (out / "report.html").read_text()


LAYOUTS: dict[str, dict[str, int]] = {
    "good and bad": {"good": 12, "bad": 4},
    "several kinds": {"good": 12, "scratch": 2, "dent": 2},
    "own train and test": {"train__good": 10, "test__good": 2, "test__scratch": 2, "test__dent": 2},
    "no normal ones to test": {"train__good": 12, "test__bad": 4},
    "loose training images": {"train": 10, "test__good": 2, "test__bad": 4},
    "parts below the kinds": {"good__train": 10, "good__test": 2, "bad__test": 4},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_without_masks_is_trained_on_and_evaluated_at_image_level(
    layout: str, tmp_path: Path
) -> None:
    data = fill(tmp_path / "data", **LAYOUTS[layout])
    train(BUNDLE, data, tmp_path / "models")
    metrics = evaluated(data, tmp_path / "models/model.pt", tmp_path / "out")
    check_image_level_only(metrics, tmp_path / "out")
    # Two of twelve normal images, which the model has not seen, and the four anomalous ones.
    assert metrics["counts"]["slices"] == 6
    assert metrics["counts"]["abnormal_slices"] == 4
    assert metrics["seen_images"]["training"]["count"] == 0
    assert metrics["seen_images"]["held_out"]["count"] == 0


def test_another_folder_is_evaluated_whole_by_the_command(tmp_path: Path) -> None:
    train(BUNDLE, fill(tmp_path / "data", good=8), tmp_path / "models")
    new = tmp_path / "new"
    rng = np.random.default_rng(9)
    for number in range(5):
        save_image(new / "good" / f"{number}.png", picture(64, rng, defect=False)[0])
        save_image(new / "bad" / f"{number}.png", picture(64, rng, defect=True)[0])
    evaluate_model(new, tmp_path / "models/model.pt", tmp_path / "out", bootstrap=20)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    check_image_level_only(metrics, tmp_path / "out")
    assert metrics["counts"]["slices"] == 10


def test_a_flat_folder_trains_and_another_of_unknown_images_is_judged(tmp_path: Path) -> None:
    data = fill(tmp_path / "normal", train=6) / "train"
    train(BUNDLE, data, tmp_path / "models")
    rng = np.random.default_rng(9)
    for number in range(3):
        save_image(tmp_path / "new" / f"{number}.png", picture(64, rng, defect=True)[0])
    rows = infer(BUNDLE, tmp_path / "new", tmp_path / "models/model.pt", tmp_path / "maps")
    assert sorted(rows) == ["0.png", "1.png", "2.png"]
    (decision,) = {row["decision"] for row in rows.values()}
    assert re.search(r"no verdict: 1 normal image .*\b50 %.*\b19\b.*\b5 %", decision)


@pytest.mark.parametrize("name", ["kolektor_sdd", "magnetic_tile"])
def test_real_products_without_their_masks(name: str, real_data: Path, tmp_path: Path) -> None:
    source = real_data / "industrial" / name
    kinds = [("train/good", 24)] + [
        (f"test/{kind.name}", 4) for kind in sorted((source / "test").iterdir())
    ]
    for kind, count in kinds:
        (tmp_path / "data" / kind).mkdir(parents=True)
        for path in sorted((source / kind).iterdir())[:count]:
            (tmp_path / "data" / kind / path.name).symlink_to(path)
    train(BUNDLE, tmp_path / "data", tmp_path / "models")
    metrics = evaluated(tmp_path / "data", tmp_path / "models/model.pt", tmp_path / "out")
    check_image_level_only(metrics, tmp_path / "out")
    assert metrics["counts"]["slices"] == 4 * (len(kinds) - 1)
