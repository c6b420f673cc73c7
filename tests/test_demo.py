"""The demonstration: a reproducible cohort, and a small run from end to end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from multiad_med.data import load_datalist
from multiad_med.demo import Cohort, cohort, make_cohort, run_demo
from multiad_med.demo.cohort import LESIONS
from multiad_med.utils import FileError

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


def _quick(template: np.ndarray, kind: str | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    volume = np.random.default_rng(seed).integers(0, 1000, (6, 5, 4)).astype(np.int16)
    return volume, (volume > 900).astype(np.uint8)


def test_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "_subject", _quick)
    some = Cohort(training=2, validation=1, healthy_test=1, lesion_test=0)
    contents = []
    for count in (1, 2):
        monkeypatch.setattr(cohort, "processors", lambda count=count: count)
        folder = make_cohort(tmp_path / str(count), cohort=some, seed=1)
        files = [path for path in folder.rglob("*") if path.is_file()]
        contents.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert len(contents[0]) == 6
    assert contents[0] == contents[1]


def _fails(*_: object) -> None:
    raise ValueError("no such anatomy")


def _dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("subject", "error", "message"),
    [(_fails, ValueError, "no such anatomy"), (_dies, FileError, "fewer processors")],
)
def test_what_fails_in_a_process_is_told_and_leaves_no_datalist(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subject: Callable[..., None],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(cohort, "_subject", subject)
    with pytest.raises(error, match=message):
        make_cohort(tmp_path, cohort=ONE)
    assert not (tmp_path / "datalist.json").exists()


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
    assert not (tmp_path / "model/features").exists()
