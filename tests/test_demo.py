"""The demonstration: a reproducible cohort, and a small run from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.data import load_datalist
from multiad_med.demo import Cohort, make_cohort, run_demo
from multiad_med.demo.cohort import LESIONS

pytestmark = pytest.mark.slow

ONE = Cohort(training=1, validation=0, healthy_test=0, lesion_test=1)


def _volume(item: dict[str, str], key: str = "image") -> np.ndarray:
    return np.asarray(nib.load(item[key]).dataobj)


def test_cohort_is_the_same_for_the_same_seed_and_another_for_another(tmp_path: Path) -> None:
    lists = [
        load_datalist(make_cohort(tmp_path / name, cohort=ONE, seed=seed))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    first, again, other = (_volume(x["training"][0]) for x in lists)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(
        _volume(lists[0]["test"][0], "label"), _volume(lists[1]["test"][0], "label")
    )


@pytest.mark.parametrize("kind", LESIONS)
def test_a_lesion_changes_the_volume_where_its_mask_is(kind: str) -> None:
    from multiad_med.demo.cohort import _add_lesion

    shape = (96, 96, 96)
    distance = np.linalg.norm(np.indices(shape) - 47.5, axis=(0))
    brain = ((distance < 45) * (1 + 0.1 * np.sin(np.indices(shape)[0] / 5))).astype(np.float32)
    changed, mask = _add_lesion(brain, kind, np.random.default_rng(0))
    assert mask.any()
    difference = np.abs(changed - brain)
    assert difference[mask].mean() > 0.1
    assert difference[~mask & (distance < 45)].mean() < 0.02


def test_small_demo_leaves_maps_image_and_metrics(tmp_path: Path) -> None:
    cohort = Cohort(training=2, validation=1, healthy_test=0, lesion_test=1)
    metrics = run_demo(tmp_path, cohort=cohort, epochs=1)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    for key in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro", "best_dice", "dice"):
        assert 0 <= metrics[key] <= 1, key
    assert len(metrics["studies"]) == 1
    item = load_datalist(tmp_path / "cohort")["test"][0]
    heat = nib.load(tmp_path / "images/test00_mass_anomaly_map.nii.gz")
    assert heat.shape == _volume(item).shape
    np.testing.assert_allclose(heat.affine, nib.load(item["image"]).affine, atol=1e-4)
    assert (tmp_path / "montage.png").stat().st_size > 20_000
