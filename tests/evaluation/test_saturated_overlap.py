"""sPRO in an evaluation: MVTec LOCO's own masks, thresholds and sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from multiad_med.data.datalist import DatalistError
from multiad_med.datasets import find_mvtec
from multiad_med.evaluation import Case, evaluate_cases
from multiad_med.evaluation.labelled import evaluate_model
from multiad_med.evaluation.saturated_overlap import SaturatedOverlap
from multiad_med.preparation import load_recipe, prepare
from multiad_med.readers.loco_regions import loco_regions
from multiad_med.testing.layouts import make_loco, make_mvtec, save_image
from tests.bundles.models import train


def case(study: str, anomaly_map: torch.Tensor, *, anomalous: bool = True) -> Case:
    shape = (1, *anomaly_map.shape)
    return Case(
        study=study,
        subject=study,
        image=torch.zeros(shape),
        anomaly_map=anomaly_map[None],
        label=torch.full(shape, anomalous),
        foreground=torch.ones(shape, dtype=torch.bool),
        numbers=torch.tensor([0]),
        scores=anomaly_map.max()[None],
        abnormal=torch.tensor([anomalous]),
        category="breakfast_box",
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One image of 8 x 8 for each kind; the logical defect is 16 pixels, of which 4 are enough."""
    root = tmp_path / "breakfast_box"
    make_loco(tmp_path, rng=np.random.default_rng(0), size=8)
    for path in root.glob("ground_truth/*/000/001.png"):
        path.unlink()
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4] = 255
    save_image(root / "ground_truth/logical_anomalies/000/000.png", mask)
    save_image(root / "ground_truth/structural_anomalies/000/000.png", mask // 255 * 254)
    config = [
        {"pixel_value": 255, "saturation_threshold": 4, "relative_saturation": False},
        {"pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
    ]
    (root / "defects_config.json").write_text(json.dumps(config))
    return tmp_path


def test_thresholds_are_of_pixels_or_of_the_area(tree: Path) -> None:
    truth = tree / "breakfast_box/ground_truth"
    (logical,) = loco_regions([truth / "logical_anomalies/000/000.png"])
    (structural,) = loco_regions([truth / "structural_anomalies/000/000.png"])
    assert (logical.saturation, structural.saturation) == (4, 8)
    assert int(logical.mask.sum()) == 16
    assert loco_regions([]) == []


def test_a_small_defect_saturates_at_its_area_and_unknown_values_are_refused(tree: Path) -> None:
    path = tree / "breakfast_box/ground_truth/logical_anomalies/000/000.png"
    mask = np.zeros((8, 8), np.uint8)
    mask[0, :3] = 255
    save_image(path, mask)
    assert loco_regions([path])[0].saturation == 3
    save_image(path, mask // 255 * 7)
    with pytest.raises(DatalistError, match=r"has the value 7, .* knows \[254, 255\]"):
        loco_regions([path])


def test_part_of_a_defect_is_enough_and_maps_are_brought_to_its_size(tree: Path) -> None:
    overlap = SaturatedOverlap(find_mvtec(tree))
    top = torch.zeros(4, 4)  # half the size of the published images
    top[0, :2] = 1
    name = "breakfast_box/test/{}_anomalies/000".format
    cases = [
        case(name("logical"), top),
        case(name("structural"), top),
        case("breakfast_box/test/good/000", torch.zeros(4, 4), anomalous=False),
        case("another/test/good/000", torch.ones(4, 4), anomalous=False),
    ]
    evaluation = evaluate_cases(cases, saturated=overlap, bootstrap=5)
    assert evaluation.metrics["pixels"]["spro"].value > 0.9
    assert evaluation.as_json()["spro"] == overlap.metrics()["breakfast_box"]
    silent = SaturatedOverlap(find_mvtec(tree))
    for study in ("logical", "structural"):
        silent.update(case(name(study), torch.zeros(8, 8)))
    # A flat map reaches nothing before everything: half of the limit, as a curve of slope 1.
    assert silent.metrics()["breakfast_box"] == pytest.approx(0.025)


@pytest.mark.slow
def test_evaluating_files_or_slices_gives_it(tmp_path: Path) -> None:
    make_loco(tmp_path / "loco", rng=np.random.default_rng(0), size=64)
    prepare(
        load_recipe("mvtec_ad", {"size": 64}),
        tmp_path / "loco",
        tmp_path / "slices",
        workers=0,
        progress=False,
    )
    train("multiad_industrial", tmp_path / "loco", tmp_path / "run")
    for data in ("loco", "slices"):
        out = tmp_path / f"of_{data}"
        evaluate_model(tmp_path / data, tmp_path / "run/model.pt", out, bootstrap=5)
        found = json.loads((out / "metrics.json").read_text())
        assert 0 <= found["spro"] <= 1
        assert set(found["kinds"]) == {"logical_anomalies", "structural_anomalies", "mean"}
        assert (out / "kinds.csv").read_text().startswith("kind,image_auroc\n")
        assert "sPRO" in (out / "report.html").read_text()


def test_other_data_sets_have_no_spro(tmp_path: Path) -> None:
    make_mvtec(tmp_path, rng=np.random.default_rng(0))
    overlap = SaturatedOverlap(find_mvtec(tmp_path))
    overlap.update(case("bottle/test/crack/000", torch.rand(8, 8)))
    assert overlap.metrics() == {}
    found = evaluate_cases([case("a", torch.rand(8, 8))], bootstrap=5)
    assert "spro" not in found.as_json()
